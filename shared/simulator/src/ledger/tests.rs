use super::*;

fn received(tokens: u64) -> Received {
    Received { prompt_tokens: tokens, ..Received::default() }
}

#[test]
fn a_call_is_closed_once_and_counted() {
    let ledger = Ledger::new();
    let mut first = ledger.open(Kind::OpenAi, received(5));
    let second = ledger.open(Kind::Tool, received(0));
    assert_eq!((2, 2), (ledger.stats().in_flight, ledger.stats().max_in_flight));
    first.status(200);
    first.sent(7);
    first.close(Outcome::Completed);
    drop(first);
    drop(second);
    let stats = ledger.stats();
    assert_eq!((0, 1, 1), (stats.in_flight, stats.completed, stats.client_disconnected));
    assert_eq!((5, 7), (stats.prompt_tokens, stats.completion_tokens));
    let calls = ledger.calls();
    assert_eq!((Outcome::Completed, 200, 7), (calls[0].outcome, calls[0].status, calls[0].completion_tokens));
    assert_eq!(Outcome::ClientDisconnected, calls[1].outcome);
    assert!(calls.iter().all(|call| call.ended_at_us >= Some(call.at_us)));
}

#[test]
fn ids_go_on_after_a_reset_and_old_calls_do_not_count() {
    let ledger = Ledger::new();
    let old = ledger.open(Kind::OpenAi, received(1));
    ledger.clear();
    let new = ledger.open(Kind::Anthropic, received(2));
    drop(old);
    drop(new);
    let stats = ledger.stats();
    assert_eq!((1, 0, 1), (stats.received, stats.openai, stats.client_disconnected));
    assert_eq!((2, 0), (stats.last_id, stats.in_flight));
    assert_eq!(vec![2], ledger.calls().iter().map(|call| call.id).collect::<Vec<_>>());
    assert_eq!(0, ledger.since(2, 10).len());
    assert_eq!(1, ledger.since(0, 10).len());
}

#[test]
fn the_oldest_calls_give_way() {
    let ledger = Ledger::new();
    for _ in 0..=MAX_CALLS {
        drop(ledger.open(Kind::Tool, Received::default()));
    }
    let book = ledger.book();
    assert_eq!(MAX_CALLS, book.calls.len());
    assert_eq!(Some(2), book.calls.front().map(|call| call.id));
    let last = book.calls.back().map(|call| (call.id, call.outcome));
    assert_eq!(Some((MAX_CALLS as u64 + 1, Outcome::ClientDisconnected)), last);
}

#[test]
fn calls_that_the_simulator_drops_at_its_end_are_cut() {
    let ledger = Ledger::new();
    let open = ledger.open(Kind::Tool, Received::default());
    ledger.close();
    drop(open);
    assert_eq!(Outcome::Cut, ledger.calls()[0].outcome);
}
