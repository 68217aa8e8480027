//! Requests of all kinds: those of the demo, and some that the filter does not read.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use crate::ask::Client;
use crate::rows::{Api, GROUPS};
use crate::stack::Stack;

/// Sends each request once to each gateway, all at the same time. What comes of them is not looked at: that is the demo's.
pub async fn send(stacks: &[Stack]) {
    join_all(stacks.iter().map(send_to)).await;
}

async fn send_to(stack: &Stack) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let client = Client::new(stack).expect("a client");
    let rate_limit = client.use_up_rate_limit().await;
    rate_limit.expect("the gateway answers");
    let rows = GROUPS.iter().flat_map(|group| group.rows);
    let rows = rows.map(async |row| {
        let id = format!("row-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        client.ask(row, &id).await;
    });
    let unread = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    let http = reqwest::Client::builder().no_proxy().build();
    let http = http.expect("a client");
    let unread = unread.map(async |(name, value)| {
        let request = http.post(stack.envoy.url(Api::Chat.path()));
        let request = request.header(name, value).body("Hello");
        request.send().await.expect("an answer");
    });
    tokio::join!(join_all(rows), join_all(unread));
}
