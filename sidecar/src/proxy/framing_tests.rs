use proptest::prelude::*;

use super::*;

fn fault_of(head: &str) -> Option<HeadFault> {
    let mut framing = Framing::new();
    framing.follow(head.as_bytes()).unwrap();
    assert!(framing.requests() > 0, "the head must be complete: {head:?}");
    framing.fault().map(|fault| fault.head)
}

fn with(lines: &str) -> Option<HeadFault> {
    fault_of(&format!("POST /api/chat HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

#[test]
fn ordinary_heads_are_beyond_doubt() {
    assert_eq!(with(""), None);
    assert_eq!(with("Content-Length: 0\r\n"), None);
    assert_eq!(with("transfer-encoding: Chunked\r\n"), None);
    assert_eq!(with("X: \ta b\t\r\nY:\r\n"), None);
}

#[test]
fn a_body_has_one_length_said_in_one_way() {
    for lines in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 02\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551618\r\n",
    ] {
        assert_eq!(with(lines), Some(HeadFault::Framing), "{lines:?}");
    }
}

#[test]
fn there_is_one_plain_host() {
    assert_eq!(fault_of("GET / HTTP/1.1\r\n\r\n"), Some(HeadFault::Host));
    for host in ["", "a@b", "a b", "a/b"] {
        assert_eq!(
            fault_of(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Some(HeadFault::Host),
            "{host}"
        );
    }
    assert_eq!(with("Host: b\r\n"), Some(HeadFault::Host));
    assert_eq!(fault_of("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), None);
}

#[test]
fn lines_end_in_crlf_and_hold_no_strange_bytes() {
    for head in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(fault_of(head), Some(HeadFault::Malformed), "{head:?}");
    }
    for version in ["1.0", "1.2", "2.0"] {
        assert_eq!(fault_of(&format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")), Some(HeadFault::Version));
    }
}

#[test]
fn a_head_is_bounded_even_before_it_ends() {
    let mut framing = Framing::new();
    framing.follow(b"GET / HTTP/1.1\r\nX: ").unwrap();
    framing.follow(&vec![b'x'; MAX_HEAD]).unwrap();
    assert_eq!(framing.fault(), Some(Fault { request: 1, head: HeadFault::TooLarge }));
}

#[test]
fn chunked_bodies_are_read_by_the_letter() {
    for body in [
        "2\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n",
        "0x2\r\n{}\r\n",
        "+2\r\n{}",
        "2;a=\"\r\n\"\r\n{}\r\n",
        "\r\n",
        "2\r\n{}\n0\r\n",
    ] {
        let mut framing = Framing::new();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(framing.follow(format!("{head}{body}").as_bytes()), Err(BadChunk), "{body:?}");
    }
    let mut framing = Framing::new();
    let whole = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000002\r\n";
    assert_eq!(framing.follow(whole.as_bytes()), Err(BadChunk));
}

#[test]
fn trailers_are_bounded() {
    let mut framing = Framing::new();
    framing.follow(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").unwrap();
    assert_eq!(framing.follow(&vec![b'x'; MAX_TRAILERS + 1]), Err(BadChunk));
}

proptest! {
    #[test]
    fn requests_are_counted_alike_however_the_bytes_are_cut(cuts in prop::collection::vec(0usize..400, 0..12)) {
        let stream = concat!(
            "GET /api/tags HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ).as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < stream.len()).collect();
        cuts.sort_unstable();
        let mut framing = Framing::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            framing.follow(&stream[from..cut]).unwrap();
            from = cut;
        }
        prop_assert_eq!(framing.requests(), 4);
        prop_assert_eq!(framing.fault(), Some(Fault { request: 4, head: HeadFault::Host }));
    }
}
