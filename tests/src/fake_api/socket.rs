//! The server on a socket, for an operator that is a process of its own.

use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::FakeApi;
use super::life::Life;

/// A server that listens on loopback, without TLS and without asking who is there; it ends when this is dropped.
pub struct Listening {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listening {
    /// Serves clients of `api`.
    pub async fn start(api: &FakeApi) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, api) = (listener.local_addr()?, api.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(api.clone(), socket));
            }
        });
        Ok(Self { address, accepting })
    }

    /// A kubeconfig that leads there.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
             clusters: [{{name: fake, cluster: {{server: \"http://{}\"}}}}]\n\
             contexts: [{{name: fake, context: {{cluster: fake, user: nobody}}}}]\n\
             users: [{{name: nobody, user: {{}}}}]\n",
            self.address
        )
    }
}

async fn converse(api: FakeApi, socket: TcpStream) {
    // Without it all that is small waits; a socket that is gone already is noticed below.
    let _ = socket.set_nodelay(true);
    let life = Life::default();
    let service = service_fn(move |request| {
        let (api, life) = (api.clone(), life.clone());
        async move { api.answer(&life, request).await }
    });
    // A client may leave in the middle of a watch.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}
