use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each request with 2 bytes, and closes a connection after `per_connection` of them.
async fn server(per_connection: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                for _ in 0..per_connection {
                    let mut buffer = [0; 4096];
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
            });
        }
    });
    (address, connections)
}

async fn exchange(upstream: &Upstream) -> Result<(), NoAnswer> {
    let (response, lease) = upstream.send(Request::new(Pieces::default())).await?;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    upstream.give_back(lease);
    // What drives the connection must run once to see that the answer is over.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}

#[tokio::test]
async fn one_connection_carries_request_after_request() {
    let (address, connections) = server(usize::MAX).await;
    let upstream = Upstream::new(address, Duration::from_secs(1), Arc::default());
    for _ in 0..5 {
        exchange(&upstream).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_fails_nobody() {
    let (address, connections) = server(1).await;
    let upstream = Upstream::new(address, Duration::from_secs(1), Arc::default());
    for _ in 0..5 {
        exchange(&upstream).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_dropped_lease_cuts_its_connection() {
    let (address, connections) = server(usize::MAX).await;
    let upstream = Upstream::new(address, Duration::from_secs(1), Arc::default());
    let sent = upstream.send(Request::new(Pieces::default())).await.unwrap();
    drop(sent);
    exchange(&upstream).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_connection_is_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = Upstream::new(nobody, Duration::from_secs(1), Arc::default());
    assert!(matches!(exchange(&upstream).await, Err(NoAnswer::Refused(_))));
}

#[tokio::test]
async fn connections_over_a_network_are_given_up_when_the_other_side_is_lost() {
    let (address, _) = server(usize::MAX).await;
    let stream = TcpStream::connect(address).await.unwrap();
    give_up_after(Duration::from_secs(20), &stream).unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
    let upstream = Upstream::new(address, Duration::from_secs(1), Arc::default());
    exchange(&upstream.lost_after(Duration::from_secs(20))).await.unwrap();
}
