//! Keys, enrolment tokens, login tokens and sessions.

use weir_config::Secret;
use weir_metadata::{
    Key, LOGIN_TOKEN_LIFE_MS, Location, Metadata, MetadataError, NewAgent, NewKey, NewToken, SESSION_LIFE_MS, Scopes,
    Token, TokenRefused, TokenText,
};

use crate::schema::execute;
use crate::suite::open;

const DAY_MS: i64 = 86_400_000;

fn new_key(scopes: Scopes, expires_ms: Option<i64>) -> NewKey {
    NewKey { name: "ci".to_owned(), scopes, agent_id: None, expires_ms }
}

async fn verified(metadata: &Metadata, text: &str, now_ms: i64) -> Option<Key> {
    metadata.verify_key(text, now_ms).await.expect("verifies")
}

pub async fn keys(location: Location) {
    let metadata = open(&location).await;
    let (key, text) =
        metadata.create_key(new_key("ingest,read".parse().expect("scopes"), None), 7).await.expect("creates");
    let (other, other_text) = metadata.create_key(new_key(Scopes::READ, None), 8).await.expect("creates");
    assert!(key.scopes.ingest && key.scopes.read && !key.scopes.admin && key.created_ms == 7);
    let secret = text.expose().strip_prefix(&format!("weir_{}_", key.id)).expect("weir_<id>_<secret>");
    assert_eq!((key.id.len(), secret.len()), (12, 43));
    assert!(!format!("{text:?} {text} {key:?}").contains(secret));

    for _ in 0..2 {
        assert_eq!(
            verified(&metadata, text.expose(), 10).await,
            Some(key.clone()),
            "from the database, then from memory"
        );
        assert_eq!(metadata.verify_key_pair(&key.id, secret, 10).await, Ok(Some(key.clone())));
    }
    let other_secret = other_text.expose().rsplit_once(&format!("{}_", other.id)).expect("its parts").1;
    let mut flipped = text.expose().to_owned();
    let last = if flipped.pop() == Some('A') { 'B' } else { 'A' };
    flipped.push(last);
    let mixed = format!("weir_{}_{other_secret}", key.id);
    for wrong in ["", "weir_", "x", "weir\0", secret, &flipped, &mixed, &text.expose().to_uppercase(), &key.id] {
        assert_eq!(verified(&metadata, wrong, 10).await, None, "{wrong:?}");
    }
    for (id, secret) in
        [(key.id.as_str(), other_secret), ("", secret), ("\0", secret), (&key.id, ""), ("nobody", secret)]
    {
        assert_eq!(metadata.verify_key_pair(id, secret, 10).await, Ok(None), "{id:?}");
    }
    assert_eq!(metadata.keys().await, Ok(vec![other, key]));
    let none = metadata.create_key(new_key(Scopes::default(), None), 7).await.expect_err("no scopes");
    assert!(matches!(none, MetadataError::Invalid { what: "scopes", .. }), "{none}");
}

pub async fn revoked_key(location: Location) {
    let metadata = open(&location).await;
    let (key, text) = metadata.create_key(new_key(Scopes::ADMIN, None), 1).await.expect("creates");
    assert!(verified(&metadata, text.expose(), 2).await.is_some());
    metadata.revoke_key(&key.id, 3).await.expect("revokes");
    assert_eq!(verified(&metadata, text.expose(), 3).await, None);
    metadata.revoke_key(&key.id, 9).await.expect("stays revoked");
    assert_eq!(metadata.keys().await.expect("lists")[0].revoked_ms, Some(3));
    let unknown = metadata.revoke_key("nobody", 3).await;
    assert_eq!(unknown, Err(MetadataError::NotFound { what: "key", id: "nobody".to_owned() }));

    // Another process, with a memory of its own, that has not seen this key lately.
    let (key, text) = metadata.create_key(new_key(Scopes::ADMIN, None), 1).await.expect("creates");
    let other = open(&location).await;
    other.revoke_key(&key.id, 3).await.expect("revokes");
    assert_eq!(verified(&metadata, text.expose(), 4).await, None);
}

pub async fn expired_key(location: Location) {
    let metadata = open(&location).await;
    let (_, text) = metadata.create_key(new_key(Scopes::INGEST, Some(1_000)), 1).await.expect("creates");
    assert!(verified(&metadata, text.expose(), 999).await.is_some());
    assert_eq!(verified(&metadata, text.expose(), 1_000).await, None, "remembered, and expired");
    let fresh = open(&location).await;
    assert_eq!(verified(&fresh, text.expose(), 1_000).await, None, "from the database");
}

pub async fn imported_keys(location: Location) {
    let metadata = open(&location).await;
    let import = async |text: &str, scopes, now_ms| {
        metadata.import_key(&Secret::new(text), scopes, "WEIR_ADMIN_KEY", now_ms).await
    };
    let own = "correct horse battery";
    let key = import(own, Scopes::ADMIN, 1).await.expect("imports");
    assert_eq!(verified(&metadata, own, 2).await.map(|key| key.scopes), Some(Scopes::ADMIN));
    assert_eq!(
        metadata.verify_key_pair(&key.id, own, 2).await.expect("verifies").map(|key| key.id),
        Some(key.id.clone())
    );
    let again = import(own, Scopes::READ, 3).await.expect("imports");
    assert_eq!((again.id == key.id, again.created_ms, again.scopes), (true, 1, Scopes::READ));
    assert_eq!(verified(&metadata, own, 3).await.map(|key| key.scopes), Some(Scopes::READ));
    assert_eq!(metadata.keys().await.expect("lists").len(), 1);

    let new = import("another horse battery", Scopes::ADMIN, 4).await.expect("imports");
    assert_eq!(verified(&metadata, own, 5).await, None, "the new text replaces the old one");
    assert!(verified(&metadata, "another horse battery", 5).await.is_some());
    metadata.revoke_key(&new.id, 6).await.expect("revokes");
    import("another horse battery", Scopes::ADMIN, 7).await.expect("imports");
    assert!(verified(&metadata, "another horse battery", 8).await.is_some(), "the operator says so again");

    for (text, part) in [
        ("fifteen letters", "15 characters and needs at least 16"),
        ("", "0 characters"),
        (" sixteen letters ", "blank"),
        ("seventeen\nletters", "control"),
    ] {
        let error = import(text, Scopes::ADMIN, 9).await.expect_err("refused").to_string();
        assert!(error.contains(part) && (text.is_empty() || !error.contains(text)), "{error}");
    }

    let (generated, text) = metadata.create_key(new_key(Scopes::INGEST, Some(5)), 1).await.expect("creates");
    let foreign = format!("weir_{}_{}", generated.id, "x".repeat(43));
    let refused = import(&foreign, Scopes::ADMIN, 9).await;
    assert_eq!(refused, Err(MetadataError::Conflict { what: "key id", value: generated.id.clone() }));
    assert!(verified(&metadata, "another horse battery", 9).await.is_some(), "a refused import changes nothing");
    assert_eq!(import(text.expose(), Scopes::ADMIN, 9).await.expect("imports").id, generated.id);
    assert!(verified(&metadata, text.expose(), 10).await.is_some_and(|key| key.scopes.admin));
    let elsewhere = format!("weir_zzzzzzzzzzzz_{}", "y".repeat(43));
    assert_eq!(import(&elsewhere, Scopes::ADMIN, 9).await.expect("imports").id, "zzzzzzzzzzzz");
    assert!(verified(&metadata, &elsewhere, 10).await.is_some());
}

pub async fn touched_key(location: Location) {
    let metadata = open(&location).await;
    let (key, _) = metadata.create_key(new_key(Scopes::INGEST, None), 1).await.expect("creates");
    let mut written = Vec::new();
    for now_ms in [1_000, 30_000, 60_999, 61_000, 61_001] {
        metadata.touch_key(&key.id, now_ms).await.expect("touches");
        written.push(metadata.keys().await.expect("lists")[0].last_used_ms);
    }
    assert_eq!(written, [1_000, 1_000, 1_000, 61_000, 61_000].map(Some));
    metadata.touch_key("nobody", 1).await.expect("an unknown key is nothing to write");
}

async fn new_token(metadata: &Metadata, uses: i64, expires_ms: i64) -> (Token, TokenText) {
    let new = NewToken { name: "rack 7".to_owned(), uses, expires_ms };
    metadata.create_token(new, 1).await.expect("creates")
}

pub async fn token_states(location: Location) {
    let metadata = open(&location).await;
    let (token, text) = new_token(&metadata, 2, 1_000).await;
    let parts: Vec<&str> = text.expose().split('-').collect();
    assert!(parts.len() == 4 && parts.iter().all(|part| part.len() == 4), "XXXX-XXXX-XXXX-XXXX");
    assert_eq!(metadata.check_token(text.expose(), 10).await, Ok(Ok(token.clone())));
    let typed = text.expose().to_lowercase().replace('-', "").replace('0', "o").replace('1', "l");
    assert_eq!(metadata.check_token(&typed, 10).await, Ok(Ok(token.clone())), "{typed}");
    for wrong in ["", "hello", "0000-0000-0000-0000", "\0"] {
        assert_eq!(metadata.check_token(wrong, 10).await, Ok(Err(TokenRefused::Unknown)));
        assert_eq!(metadata.redeem_token(wrong, 10).await, Ok(Err(TokenRefused::Unknown)));
    }
    for used in 1..=2 {
        let redeemed = metadata.redeem_token(&typed, 10).await.expect("redeems");
        assert_eq!(redeemed, Ok(Token { used, ..token.clone() }));
    }
    assert_eq!(metadata.redeem_token(&typed, 10).await, Ok(Err(TokenRefused::UsedUp)));
    assert_eq!(metadata.check_token(&typed, 10).await, Ok(Err(TokenRefused::UsedUp)));
    let expired = Ok(Err(TokenRefused::Expired { at_ms: 1_000 }));
    assert_eq!(metadata.check_token(&typed, 1_000).await, expired);
    assert_eq!(metadata.redeem_token(&typed, 1_000).await, expired);
    metadata.revoke_token(&token.id, 20).await.expect("revokes");
    assert_eq!(metadata.check_token(&typed, 30).await, Ok(Err(TokenRefused::Revoked)));
    assert_eq!(metadata.redeem_token(&typed, 30).await, Ok(Err(TokenRefused::Revoked)));
    assert_eq!(metadata.tokens().await, Ok(vec![Token { used: 2, revoked_ms: Some(20), ..token }]));
    let unknown = metadata.revoke_token("nobody", 1).await;
    assert_eq!(unknown, Err(MetadataError::NotFound { what: "token", id: "nobody".to_owned() }));
    for uses in [0, -1, 1_001] {
        let refused = metadata.create_token(NewToken { name: String::new(), uses, expires_ms: 9 }, 1).await;
        assert!(matches!(refused, Err(MetadataError::Invalid { what: "uses", .. })));
    }
}

pub async fn concurrent_redeems(location: Location) {
    // Two processes, so that nothing in the memory of one can be what decides.
    let processes = [open(&location).await, open(&location).await];
    for uses in [1, 3] {
        let (_, text) = new_token(&processes[0], uses, 1_000).await;
        let tasks: Vec<_> = (0..12)
            .map(|number: usize| {
                let (metadata, text) = (processes[number % 2].clone(), text.clone());
                tokio::spawn(async move { metadata.redeem_token(text.expose(), 10).await.expect("answers") })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(_) => won += 1,
                Err(refused) => assert_eq!(refused, TokenRefused::UsedUp),
            }
        }
        assert_eq!(won, uses);
    }
}

pub async fn enrolment(location: Location) {
    let metadata = open(&location).await;
    let (_, text) = new_token(&metadata, 1, 1_000).await;
    let agent = |hostname: &str| NewAgent { hostname: hostname.to_owned(), ..NewAgent::default() };

    // A failure in the middle, at the last of three steps, undoes the two before.
    execute(&location, "ALTER TABLE api_keys RENAME TO hidden").await;
    let failed = metadata.enroll(text.expose(), agent("web-1"), 10).await.expect_err("no table for keys");
    assert!(failed.to_string().contains("api_keys"), "{failed}");
    execute(&location, "ALTER TABLE hidden RENAME TO api_keys").await;
    let left = metadata.check_token(text.expose(), 10).await.expect("reads").expect("still valid");
    assert_eq!((left.used, metadata.agents().await.expect("lists").len()), (0, 0));

    let (joined, key) = metadata.enroll(text.expose(), agent("web-1"), 10).await.expect("answers").expect("joins");
    assert_eq!((joined.hostname.as_str(), joined.registered_ms), ("web-1", 10));
    let verified = verified(&metadata, key.expose(), 11).await.expect("its key works");
    assert_eq!((verified.scopes, verified.agent_id), (Scopes::INGEST, Some(joined.id)));
    let refused = metadata.enroll(text.expose(), agent("web-2"), 12).await.expect("answers");
    assert_eq!(refused.map(|(agent, _)| agent), Err(TokenRefused::UsedUp));
    assert_eq!((metadata.agents().await.expect("lists").len(), metadata.keys().await.expect("lists").len()), (1, 1));
}

pub async fn login(location: Location) {
    let metadata = open(&location).await;
    let text = metadata.create_login_token("operator", 1_000).await.expect("creates");
    let late = metadata.redeem_login_token(text.expose(), 1_000 + LOGIN_TOKEN_LIFE_MS).await.expect("answers");
    assert!(late.is_none(), "too late");
    assert!(metadata.redeem_login_token("nonsense", 2_000).await.expect("answers").is_none());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (metadata, text) = (metadata.clone(), text.clone());
            tokio::spawn(async move { metadata.redeem_login_token(text.expose(), 2_000).await.expect("answers") })
        })
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.extend(task.await.expect("no panic"));
    }
    assert_eq!(sessions.len(), 1, "once");
    let (session_text, session) = sessions.remove(0);
    assert_eq!((session.name.as_str(), session.scopes), ("operator", Scopes::SESSION));
    assert_eq!(session.expires_ms, 2_000 + SESSION_LIFE_MS);
    assert_eq!(metadata.session(session_text.expose(), 2_000).await, Ok(Some(session)));
    assert_eq!(metadata.session(text.expose(), 2_000).await, Ok(None), "a login token is no session");
}

pub async fn sessions(location: Location) {
    let metadata = open(&location).await;
    let token = metadata.create_login_token("operator", 0).await.expect("creates");
    let (text, first) = metadata.redeem_login_token(token.expose(), 0).await.expect("answers").expect("a session");
    let at = async |now_ms| {
        metadata.session(text.expose(), now_ms).await.expect("answers").map(|session| session.expires_ms)
    };
    assert_eq!(at(60_000).await, Some(first.expires_ms), "not written for every request");
    assert_eq!(at(DAY_MS).await, Some(DAY_MS + SESSION_LIFE_MS));
    assert_eq!(at(SESSION_LIFE_MS).await, Some(2 * SESSION_LIFE_MS), "in use it lives on");
    assert_eq!(at(2 * SESSION_LIFE_MS).await, None, "30 days unused");
    assert!(at(2 * SESSION_LIFE_MS - 1).await.is_some());
    metadata.end_session(text.expose()).await.expect("ends");
    assert_eq!(at(SESSION_LIFE_MS).await, None);
    metadata.end_session(text.expose()).await.expect("again is no error");
}

pub async fn sweep(location: Location) {
    let metadata = open(&location).await;
    metadata.create_login_token("operator", 0).await.expect("creates");
    let token = metadata.create_login_token("operator", 0).await.expect("creates");
    let (session, _) = metadata.redeem_login_token(token.expose(), 0).await.expect("answers").expect("a session");
    let (_, enrolment) = new_token(&metadata, 1, 1_000).await;
    metadata.create_key(new_key(Scopes::READ, Some(1_000)), 0).await.expect("creates");
    let (_, forever) = metadata.create_key(new_key(Scopes::READ, None), 0).await.expect("creates");

    assert_eq!(metadata.sweep(1).await, Ok(0));
    assert_eq!(metadata.sweep(LOGIN_TOKEN_LIFE_MS).await, Ok(1), "the login token");
    assert_eq!(metadata.sweep(SESSION_LIFE_MS).await, Ok(1), "the session");
    assert_eq!(metadata.session(session.expose(), 1).await, Ok(None));
    let told = metadata.check_token(enrolment.expose(), SESSION_LIFE_MS).await;
    assert_eq!(told, Ok(Err(TokenRefused::Expired { at_ms: 1_000 })), "for 30 days it is told why");
    assert_eq!(metadata.sweep(1_000 + 30 * DAY_MS).await, Ok(2), "the enrolment token and the expired key");
    assert_eq!(metadata.check_token(enrolment.expose(), 1).await, Ok(Err(TokenRefused::Unknown)));
    assert!(verified(&metadata, forever.expose(), 40 * DAY_MS).await.is_some());
}
