//! The process that runs on a data folder, over its socket.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use weir_agent::ControlAddress;
use weir_net::Client;

/// The largest answer that is read: a page of dead letters, or an export of them.
const LIMIT_BYTES: usize = 512 << 20;

/// A process.
pub struct Process {
    client: Client,
    _address: ControlAddress,
}

impl Process {
    /// Whoever runs on a folder; `None` if nobody does.
    ///
    /// # Errors
    /// If somebody does and cannot be reached.
    pub async fn of(folder: &Path) -> Result<Option<Self>, String> {
        let unreachable = |error: &std::io::Error| {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied => "; do this as the user that it runs as, for example with sudo",
                _ => "",
            };
            format!("cannot reach the process that runs on {}: {error}{remedy}", folder.display())
        };
        let address = ControlAddress::of(folder).map_err(|error| unreachable(&error))?;
        match UnixStream::connect(address.path()).await {
            Ok(_) => Client::unix(&address.path()).map(|client| Some(Self { client, _address: address })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Whoever runs with this data folder and keeps nothing in it; `None` if nobody does.
    ///
    /// # Errors
    /// As [`Process::of`].
    pub async fn without_data(folder: &Path) -> Result<Option<Self>, String> {
        for folder in weir_agent::runtime_folders(folder) {
            let is_missing = std::fs::metadata(&folder).is_err_and(|error| error.kind() != ErrorKind::PermissionDenied);
            if !is_missing && let Some(process) = Self::of(&folder).await? {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// What the process answered instead, or why it did not.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let request = http::Request::get(format!("http://weir{path}")).body(Vec::new());
        decode(&self.send(request).await?)
    }

    /// Asks it to do something.
    ///
    /// # Errors
    /// As [`Process::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, String> {
        decode(&self.post_for_text(path, body).await?)
    }

    /// Asks it to do something; the answer as it is.
    ///
    /// # Errors
    /// As [`Process::get`].
    pub async fn post_for_text(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let request = http::Request::post(format!("http://weir{path}")).header("content-type", "application/json");
        self.send(request.body(body)).await
    }

    async fn send(&self, request: Result<http::Request<Vec<u8>>, http::Error>) -> Result<Vec<u8>, String> {
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.client.send(request, LIMIT_BYTES).await.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(answer.body.to_vec());
        }
        let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
        Err(if text.is_empty() { answer.status.to_string() } else { text })
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("the running process answers something else: {error}; is it of another version?"))
}
