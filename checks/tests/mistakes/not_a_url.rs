// A URL must be text or an `http::Uri`.
use httpstream::Request;

fn main() {
    let _ = Request::get(8080).build();
}
