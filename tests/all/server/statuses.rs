//! Every answer that the OpenAPI document promises is given by a running server, and no other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde_json::{Value as Json, json};
use weir_net::Answer;

use crate::harness::peers::{Peer, peer};
use crate::harness::postgres::PostgreSql;
use crate::harness::server::{ADMIN_KEY, Options, Server};
use crate::harness::weir::said;
use crate::harness::{seconds, wait_for};

/// Method, path as the document writes it, status.
type Triple = (String, String, u16);

/// Promised answers that no request brings about.
const NOT_PRODUCED: [(&str, &str, u16, &str); 1] =
    [("GET", "/api/v1/openapi.json", 500, "the document itself would have to be one that cannot be written as JSON")];

/// A key that nobody has.
const WRONG_KEY: &str = "weir_000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Longer than the time for which a server trusts a key that it looked up.
const KEYS_FORGOTTEN: std::time::Duration = seconds(7);

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    needs_key: bool,
    takes_body: bool,
}

/// The server, all answers that it gave, and what is wrong with them: all of it is told at once.
struct Tried {
    server: Server,
    seen: Mutex<BTreeSet<Triple>>,
    wrong: Mutex<Vec<String>>,
}

/// One request.
struct Request<'a> {
    method: Method,
    /// The path as the document writes it.
    path: &'a str,
    /// The path that is asked; the same if it is empty.
    at: String,
    key: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Bytes,
}

impl<'a> Request<'a> {
    fn new(method: Method, path: &'a str) -> Request<'a> {
        Request { method, path, at: path.to_owned(), key: ADMIN_KEY, headers: Vec::new(), body: Bytes::new() }
    }

    fn at(mut self, at: impl Into<String>) -> Self {
        self.at = at.into();
        self
    }

    fn key(mut self, key: &'a str) -> Self {
        self.key = key;
        self
    }

    fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn json(self, body: &Json) -> Self {
        self.body(body.to_string())
    }
}

fn get(path: &str) -> Request<'_> {
    Request::new(Method::GET, path)
}

fn post(path: &str) -> Request<'_> {
    Request::new(Method::POST, path)
}

fn delete(path: &str) -> Request<'_> {
    Request::new(Method::DELETE, path)
}

impl Tried {
    async fn answer(&self, request: Request<'_>) -> Answer {
        let url = format!("{}{}", self.server.url(), request.at);
        let mut built = http::Request::builder().method(request.method.clone()).uri(url);
        if !request.key.is_empty() {
            built = built.header("authorization", format!("Bearer {}", request.key));
        }
        for (name, value) in request.headers {
            built = built.header(name, value);
        }
        let answer = self.server.send(built.body(request.body).expect("a good address")).await;
        let triple = (request.method.to_string(), request.path.to_owned(), answer.status.as_u16());
        self.check_shape(&triple, &answer);
        self.seen.lock().expect("nobody panics with it").insert(triple);
        answer
    }

    fn complain(&self, what: String) {
        self.wrong.lock().expect("nobody panics with it").push(what);
    }

    /// That an error tells its code, what is wrong, and where that helps when to come again.
    fn check_shape(&self, triple: &Triple, answer: &Answer) {
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let excerpt = answer.excerpt();
        if matches!(triple.2, 429 | 503) && !header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0) {
            self.complain(format!("{triple:?}: no Retry-After: {excerpt}"));
        }
        if triple.2 == 401 && header("www-authenticate") != "Bearer" {
            self.complain(format!("{triple:?}: no WWW-Authenticate"));
        }
        if triple.2 < 400 || triple.1 == "/ready" {
            return;
        }
        let body: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tells = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
        if header("content-type") != "application/json"
            || body["status"] != "error"
            || !tells("code")
            || !tells("message")
        {
            self.complain(format!("{triple:?}: not the shape of errors: {excerpt}"));
        }
    }

    /// Sends a request that must get this status.
    async fn expect(&self, status: u16, request: Request<'_>) -> Answer {
        let what = format!("{} {}", request.method, request.at);
        let answer = self.answer(request).await;
        if answer.status != status {
            self.complain(format!("{what}: not {status}: {}", answer.excerpt()));
        }
        answer
    }
}

/// The operations of the document, and every answer that it promises.
fn promised(document: &Json) -> (Vec<Operation>, BTreeSet<Triple>) {
    let (mut operations, mut triples) = (Vec::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            for status in operation["responses"].as_object().expect("responses").keys() {
                triples.insert((method.to_string(), path.clone(), status.parse().expect("a status")));
            }
            let needs_key = operation.get("security") != Some(&json!([{}]));
            let takes_body = operation.get("requestBody").is_some();
            operations.push(Operation { method, path: path.clone(), needs_key, takes_body });
        }
    }
    (operations, triples)
}

/// A path with this value in the place of each parameter.
fn filled(path: &str, value: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_answer_is_given_and_no_other() {
    let Some(programs) = peer(Peer::PostgreSql) else { return };
    let mut postgres = PostgreSql::start(&programs).await;
    let refusing = refusing_backend().await;
    let config = format!(
        "server: {{keyless_loopback: false, metadata: \"{}\"}}\nintegrations: {{webhook: {{url: \"http://{refusing}\"}}}}\n",
        postgres.url()
    );
    let server = Server::start(Options { config: Some(config), ..Options::default() }).await;
    let document = server.get("/api/v1/openapi.json").await;
    let (operations, promised) = promised(&document);
    let tried = Tried { server, seen: Mutex::default(), wrong: Mutex::default() };

    everything_well(&tried).await;
    sign_in(&tried).await;
    wrong_bodies_and_parameters(&tried).await;
    the_pipeline(&tried).await;
    unknown_and_taken(&tried).await;
    of_every_operation(&tried, &operations).await;
    too_many(&tried, &operations).await;
    postgres.stop().await;
    without_database(&tried, &operations).await;

    let wrong = tried.wrong.into_inner().expect("nobody panicked with it");
    let seen = tried.seen.into_inner().expect("nobody panicked with it");
    let excused: BTreeSet<Triple> = NOT_PRODUCED
        .iter()
        .map(|(method, path, status, _)| ((*method).to_owned(), (*path).to_owned(), *status))
        .collect();
    println!("{} answers are documented, {} were given", promised.len(), seen.len());
    for (method, path, status, why) in NOT_PRODUCED {
        println!("not produced: {method} {path} {status}: {why}");
    }
    let undocumented: Vec<&Triple> = seen.difference(&promised).collect();
    let never: Vec<&Triple> = promised.difference(&seen).filter(|triple| !excused.contains(*triple)).collect();
    let needless: Vec<&Triple> =
        excused.iter().filter(|triple| seen.contains(*triple) || !promised.contains(*triple)).collect();
    let all_well = wrong.is_empty() && undocumented.is_empty() && never.is_empty() && needless.is_empty();
    assert!(
        all_well,
        "wrong: {wrong:#?}\ngiven, and not documented: {undocumented:#?}\ndocumented, and never given: {never:#?}\n\
         excused for no reason: {needless:#?}"
    );
}

/// The success of every operation, in an order in which each finds what it needs.
async fn everything_well(tried: &Tried) {
    for path in ["/health", "/ready"] {
        tried.expect(200, get(path).key("")).await;
    }
    let server = json!({"id": "server-1", "hostname": "web-1"});
    tried.expect(201, post("/api/servers").json(&server)).await;
    let agent = json!({"agent_id": "agent-1", "hostname": "web-1"});
    tried.expect(200, post("/api/v1/agents/register").json(&agent)).await;
    tried.expect(200, post("/api/v1/agents/{id}/heartbeat").at("/api/v1/agents/agent-1/heartbeat")).await;
    let metrics = json!({"cpu_usage": 12.5});
    let posted = post("/api/v1/agents/{id}/metrics").at("/api/v1/agents/agent-1/metrics").json(&metrics);
    tried.expect(200, posted).await;
    tried.expect(200, post("/api/metrics").json(&json!({"serverId": "web-1", "memoryUsage": 50}))).await;
    let telemetry = json!({"agent_id": "agent-1", "services": {"ec2": {"total_instances": 1}}, "summary": {}});
    tried.expect(200, post("/api/v1/telemetry/ingest").json(&telemetry)).await;
    tried.expect(200, post("/api/alerts").json(&json!({"source": "test", "title": "It burns"}))).await;
    wait_for("the row of the host", seconds(10), async || tried.server.host("web-1").await).await;

    for path in
        ["/metrics", "/api/v1/session", "/api/v1/status", "/api/v1/openapi.json", "/api/v1/agents", "/api/servers"]
    {
        tried.expect(200, get(path)).await;
    }
    for path in ["/api/alerts", "/api/v1/hosts", "/api/v1/keys", "/api/v1/tokens"] {
        tried.expect(200, get(path)).await;
    }
    tried.expect(200, get("/api/metrics").at("/api/metrics?serverId=web-1")).await;
    for path in ["/api/v1/agents/{id}", "/api/v1/agents/{id}/metrics"] {
        tried.expect(200, get(path).at(filled(path, "agent-1"))).await;
    }
    tried.expect(200, get("/api/servers/{id}").at("/api/servers/server-1")).await;
    for path in ["/api/v1/hosts/{name}", "/api/v1/hosts/{name}/processes", "/api/v1/hosts/{name}/probes"] {
        tried.expect(200, get(path).at(filled(path, "web-1"))).await;
    }
    let query = json!({"from_ms": 0, "to_ms": 1000, "step_ms": 1000, "queries": [{"id": "a", "metric": "m"}]});
    tried.expect(200, post("/api/v1/query").json(&query)).await;
    let patch = Request::new(Method::PATCH, "/api/servers/{id}").at("/api/servers/server-1");
    tried.expect(200, patch.json(&json!({"location": "cellar"}))).await;

    let key = tried.expect(201, post("/api/v1/keys").json(&json!({"name": "a", "scopes": ["read"]}))).await;
    tried.expect(204, delete("/api/v1/keys/{id}").at(format!("/api/v1/keys/{}", text(&key, "id")))).await;
    let token = tried.expect(201, post("/api/v1/tokens").json(&json!({"uses": 1}))).await;
    let secret = text(&token, "token");
    tried.expect(200, get("/join/{token}").at(format!("/join/{secret}")).key("")).await;
    let program = tried.expect(200, get("/join/{token}/weir").at(format!("/join/{secret}/weir")).key("")).await;
    assert!(program.body.starts_with(b"\x7fELF"), "no program");
    let joins = json!({"token": secret, "hostname": "web-2"});
    tried.expect(200, post("/api/v1/agents/enroll").key("").json(&joins)).await;
    // It was good for one machine.
    tried.expect(410, post("/api/v1/agents/enroll").key("").json(&joins)).await;
    tried.expect(410, get("/join/{token}/weir").at(format!("/join/{secret}/weir")).key("")).await;
    tried.expect(204, delete("/api/v1/tokens/{id}").at(format!("/api/v1/tokens/{}", text(&token, "id")))).await;
}

/// A backend that refuses everything for good, so that there are dead letters.
async fn refusing_backend() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().fallback(async || (http::StatusCode::BAD_REQUEST, "no thanks"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Ledger, queues, dead letters and reload.
async fn the_pipeline(tried: &Tried) {
    for path in ["/api/v1/ledger", "/api/v1/pipeline", "/api/v1/queues", "/api/v1/dead-letters"] {
        tried.expect(200, get(path)).await;
    }
    let listed = wait_for("a dead letter", seconds(20), async || {
        let page = tried.server.get("/api/v1/dead-letters").await;
        page["dead_letters"][0]["id"].as_str().map(str::to_owned)
    });
    let id = listed.await;
    let letter = "/api/v1/dead-letters/{id}";
    let shown = tried.expect(200, get(letter).at(filled(letter, &id))).await;
    assert!(String::from_utf8_lossy(&shown.body).contains("no thanks"), "the backend's answer is shown");
    tried.expect(404, get(letter).at(filled(letter, "0000000000000000"))).await;
    tried.expect(400, get(letter).at(filled(letter, "nothing"))).await;
    tried.expect(400, get("/api/v1/dead-letters").at("/api/v1/dead-letters?signal=smoke")).await;
    for path in ["/api/v1/dead-letters/replay", "/api/v1/dead-letters/drop"] {
        tried.expect(400, post(path).json(&json!({"ids": [id], "all": true}))).await;
        tried.expect(200, post(path).json(&json!({"ids": [id]}))).await;
    }
    let file = tried.server.folder().join("weir.yaml");
    let right = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{right}nonsense: 1\n")).expect("writable");
    let wrong = tried.expect(400, post("/api/v1/reload")).await;
    assert!(String::from_utf8_lossy(&wrong.body).contains("nonsense"), "the problem is named");
    std::fs::write(&file, right).expect("writable");
    tried.expect(200, post("/api/v1/reload")).await;
}

fn text(answer: &Answer, field: &str) -> String {
    let body: Json = serde_json::from_slice(&answer.body).expect("JSON");
    body[field].as_str().unwrap_or_else(|| panic!("no {field}: {body}")).to_owned()
}

async fn sign_in(tried: &Tried) {
    let link = tried.server.command(&["login"]).arg("--config").arg(tried.server.folder().join("weir.yaml")).output();
    let link = said(&link.expect("weir runs"));
    let token = link.trim().rsplit_once("#t=").unwrap_or_else(|| panic!("no link: {link}")).1;
    let login = || post("/api/v1/login").key("");
    tried.expect(403, login().header("origin", "http://evil.example").json(&json!({"token": token}))).await;
    let session = tried.expect(200, login().json(&json!({"token": token}))).await;
    tried.expect(401, login().json(&json!({"token": token}))).await;
    tried.expect(400, login().json(&json!({"tokens": token}))).await;
    let cookie = session.headers.get("set-cookie").and_then(|cookie| cookie.to_str().ok()).expect("a cookie");
    let cookie = cookie.split(';').next().expect("its first part");
    let own = tried.server.url();
    let logout = post("/api/v1/logout").key("").header("cookie", cookie).header("origin", &own);
    tried.expect(204, logout).await;
    tried.expect(401, get("/api/v1/session").key("").header("cookie", cookie)).await;
}

async fn wrong_bodies_and_parameters(tried: &Tried) {
    for path in ["/api/metrics", "/api/v1/agents/register", "/api/v1/telemetry/ingest", "/api/servers", "/api/alerts"] {
        tried.expect(400, post(path).body("{")).await;
    }
    for path in ["/api/v1/agents/enroll", "/api/v1/query", "/api/v1/keys", "/api/v1/tokens"] {
        tried.expect(400, post(path).body("{")).await;
    }
    for path in ["/api/v1/agents/{id}/metrics", "/api/v1/agents/{id}/heartbeat"] {
        tried.expect(400, post(path).at(filled(path, "agent-1")).body("{")).await;
    }
    tried.expect(400, Request::new(Method::PATCH, "/api/servers/{id}").at("/api/servers/server-1").body("{")).await;
    tried.expect(400, get("/api/metrics")).await;
    let history = get("/api/v1/agents/{id}/metrics").at("/api/v1/agents/agent-1/metrics?hours=never");
    tried.expect(400, history).await;
    tried.expect(400, get("/api/alerts").at("/api/alerts?limit=0")).await;
}

/// What is not there, what is taken, and at last what can be deleted.
async fn unknown_and_taken(tried: &Tried) {
    tried.expect(404, post("/api/metrics").json(&json!({"serverId": "nobody", "cpuUsage": 1}))).await;
    let telemetry = json!({"agent_id": "nobody", "services": {}, "summary": {}});
    tried.expect(404, post("/api/v1/telemetry/ingest").json(&telemetry)).await;
    tried.expect(404, post("/api/v1/agents/{id}/heartbeat").at("/api/v1/agents/nobody/heartbeat")).await;
    let metrics = post("/api/v1/agents/{id}/metrics").at("/api/v1/agents/nobody/metrics");
    tried.expect(404, metrics.json(&json!({"cpu_usage": 1}))).await;
    tried.expect(404, get("/api/metrics").at("/api/metrics?serverId=nobody")).await;
    for path in ["/api/v1/agents/{id}", "/api/v1/agents/{id}/metrics", "/api/servers/{id}", "/api/v1/hosts/{name}"] {
        tried.expect(404, get(path).at(filled(path, "nobody"))).await;
    }
    for path in ["/api/v1/hosts/{name}/processes", "/api/v1/hosts/{name}/probes"] {
        tried.expect(404, get(path).at(filled(path, "nobody"))).await;
    }
    let patch = |id: &str| Request::new(Method::PATCH, "/api/servers/{id}").at(format!("/api/servers/{id}"));
    tried.expect(404, patch("nobody").json(&json!({"location": "cellar"}))).await;
    let tokens = [
        post("/api/v1/agents/enroll").json(&json!({"token": "0000-0000-0000-0000", "hostname": "web-3"})),
        get("/join/{token}/weir").at("/join/0000-0000-0000-0000/weir"),
    ];
    for request in tokens {
        tried.expect(401, request.key("")).await;
    }

    tried.expect(409, post("/api/servers").json(&json!({"hostname": "web-1"}))).await;
    tried.expect(409, patch("web-2").json(&json!({"hostname": "web-1"}))).await;
    let token = tried.server.new_token(1, 3600).await;
    let joins = json!({"token": token["token"], "hostname": "elsewhere", "agent_id": "agent-1"});
    tried.expect(409, post("/api/v1/agents/enroll").key("").json(&joins)).await;

    for (path, id) in
        [("/api/v1/agents/{id}", "agent-1"), ("/api/servers/{id}", "web-2"), ("/api/v1/hosts/{name}", "web-1")]
    {
        tried.expect(204, delete(path).at(filled(path, id))).await;
        tried.expect(404, delete(path).at(filled(path, id))).await;
    }
    for path in ["/api/v1/keys/{id}", "/api/v1/tokens/{id}"] {
        tried.expect(404, delete(path).at(filled(path, "nothing"))).await;
    }
}

/// What is the same for every operation: keys, bodies that are too large or of an unknown encoding,
/// and addresses that are no text.
async fn of_every_operation(tried: &Tried, operations: &[Operation]) {
    let (read, ingest) = (tried.server.new_key(&["read"]).await, tried.server.new_key(&["ingest"]).await);
    let large = Bytes::from(vec![b' '; (16 << 20) + 1]);
    for operation in operations {
        let request = || Request::new(operation.method.clone(), &operation.path).at(filled(&operation.path, "nothing"));
        if operation.needs_key {
            tried.expect(401, request().key("")).await;
            let first = tried.answer(request().key(&read)).await;
            if first.status != 403 {
                tried.expect(403, request().key(&ingest)).await;
            }
        }
        if operation.takes_body {
            tried.expect(413, request().body(large.clone())).await;
            tried.expect(415, request().header("content-encoding", "morse").body("{}")).await;
        }
        if operation.path.contains('{') {
            tried.answer(request().at(filled(&operation.path, "%FF"))).await;
        }
    }
    for (method, path, status) in [(Method::PUT, "/api/v1/keys", 405), (Method::GET, "/api/v2/hosts", 404)] {
        let answer = tried.server.ask(method.clone(), path, ADMIN_KEY, &Json::Null).await;
        assert_eq!(answer.status, status, "{method} {path}");
        tried.check_shape(&(method.to_string(), path.to_owned(), status), &answer);
    }
}

/// An address that shows wrong keys and tokens again and again.
async fn too_many(tried: &Tried, operations: &[Operation]) {
    let refused = async |build: &dyn Fn() -> Request<'static>| {
        // One attempt is forgiven every few seconds.
        for _ in 0..20 {
            if tried.answer(build()).await.status == 429 {
                return;
            }
        }
        tried.complain(format!("20 wrong attempts and no 429: {}", build().path));
    };
    let wrong = || post("/api/v1/login").key("").json(&json!({"token": "wrong"}));
    refused(&wrong).await;
    let wrong =
        || post("/api/v1/agents/enroll").key("").json(&json!({"token": "0000-0000-0000-0000", "hostname": "a"}));
    refused(&wrong).await;
    refused(&|| get("/join/{token}/weir").at("/join/0000-0000-0000-0000/weir").key("")).await;
    for operation in operations.iter().filter(|operation| operation.needs_key) {
        let path: &'static str = operation.path.clone().leak();
        refused(&|| Request::new(operation.method.clone(), path).at(filled(path, "nothing")).key(WRONG_KEY)).await;
    }
    // Whoever has a right key is not locked out by a neighbour.
    tried.expect(200, get("/api/v1/session")).await;
}

/// PostgreSQL is gone: nothing is taken for known, and everything says that it is worth to come again.
async fn without_database(tried: &Tried, operations: &[Operation]) {
    tokio::time::sleep(KEYS_FORGOTTEN).await;
    tried.expect(200, get("/health").key("")).await;
    let joins = json!({"token": "0000-0000-0000-0000", "hostname": "a"});
    let public = [
        get("/ready"),
        post("/api/v1/login").json(&json!({"token": "unknown"})),
        post("/api/v1/agents/enroll").json(&joins),
        get("/join/{token}/weir").at("/join/0000-0000-0000-0000/weir"),
    ];
    let with_key = operations.iter().filter(|operation| operation.needs_key).map(|operation| {
        Request::new(operation.method.clone(), &operation.path).at(filled(&operation.path, "nothing"))
    });
    // All at once: each waits for a while for the database to come back.
    let begun = Instant::now();
    let all = public.into_iter().map(|request| request.key("")).chain(with_key);
    futures_util::future::join_all(all.map(|request| tried.expect(503, request))).await;
    println!("without its database the server said so after {:?}", begun.elapsed());
    let script = tried.expect(200, get("/join/{token}").at("/join/0000-0000-0000-0000").key("")).await;
    assert!(String::from_utf8_lossy(&script.body).contains("exit 1"), "a script that fails");
}
