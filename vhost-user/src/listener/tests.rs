use super::*;

#[test]
fn a_listener_takes_over_a_dead_path_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vu.sock");
    let first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(ListenError::Busy(_))));
    assert!(
        path.exists(),
        "a refused listener leaves the socket of the other"
    );
    drop(first);
    assert!(!path.exists());
    // What a killed process leaves behind: a socket that nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let _peer = UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
}

#[test]
fn a_listener_refuses_what_it_cannot_take() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "keep me").unwrap();
    assert!(matches!(
        Listener::bind(&file),
        Err(ListenError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"keep me");
    let missing = folder.path().join("missing/vu.sock");
    assert!(matches!(
        Listener::bind(&missing),
        Err(ListenError::NoFolder(_))
    ));
}
