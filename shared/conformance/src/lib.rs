//! What every backend must do, told as stories: [`exercise`] runs them all against one.
//!
//! A change of behaviour starts here. Stories use run ids and pools of their own, so they may share a store
//! with each other and with anything else. Time is the store's: where a backend lends the hand of its
//! clock ([`Subject::advance`]), stories move it; elsewhere they poll until the time has really passed.

// a story fails by panicking; its caller turns that into a failed test
#![allow(clippy::unwrap_used)]

mod access;
mod agents;
mod cancel;
mod claim;
mod complete;
mod deadline;
mod deltas;
mod events;
mod hints;
mod join;
mod large;
mod lease;
mod line;
mod list;
mod map;
mod pause;
mod replay;
mod retention;
mod retry;
mod stage;
mod submit;
mod traces;

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};
use trireme_backend::Backend;
use trireme_model::Ms;

use stage::Stage;

/// Stories that run at the same time.
const AT_ONCE: usize = 8;

/// A backend under test.
#[derive(Clone)]
pub struct Subject {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Moves the store's clock on, where the backend allows it. Such a subject must not be shared by
    /// stories: the factory makes one for each.
    pub advance: Option<Arc<dyn Fn(Ms) + Send + Sync>>,
    /// Removes what a story has left behind; called after each, with the story's pool.
    pub clean: Option<Clean>,
}

/// See [`Subject::clean`].
pub type Clean = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

type Story = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! stories {
    ($($module:ident :: $story:ident),* $(,)?) => {
        vec![$((
            concat!(stringify!($module), "::", stringify!($story)),
            (|stage| Box::pin($module::$story(stage))) as Story,
        )),*]
    };
}

fn stories() -> Vec<(&'static str, Story)> {
    stories![
        submit::a_repeat_is_the_same_run,
        submit::another_request_under_the_same_id_conflicts,
        submit::at_the_same_time_one_wins,
        submit::every_way_to_ask_for_an_unknown_run,
        claim::says_why_not,
        claim::hands_over_what_the_attempt_needs,
        claim::one_of_many_at_once_gets_it,
        claim::a_repeat_gets_the_same_answer,
        claim::a_used_up_budget_ends_paid_work,
        lease::a_renewal_keeps_it,
        lease::a_lost_one_goes_to_another_attempt,
        lease::the_third_lost_start_is_quarantined,
        complete::first_write_wins,
        complete::a_repeat_gets_the_same_answer,
        complete::the_successor_goes_on_in_the_same_hands,
        complete::usage_is_booked,
        complete::a_timed_out_attempt_is_stale,
        complete::a_loser_that_became_ready_is_not_handed_over,
        retry::a_retryable_failure_comes_again_later,
        retry::attempts_run_out,
        retry::a_permanent_failure_ends_it,
        retry::a_limited_rate_burns_no_attempt,
        retry::a_rate_limited_to_the_end_is_named,
        retry::a_released_task_is_ready_at_once,
        retry::a_fallback_takes_the_place_of_a_result,
        retry::what_waits_for_a_failure_is_skipped,
        retry::a_repeated_failure_gets_the_same_answer,
        join::all,
        join::any_cancels_the_losers,
        join::k_of_n,
        join::unmet_fails,
        join::partial_goes_without,
        join::default_fills_in,
        join::the_window_closes,
        join::a_late_input_is_not_merged,
        line::calls_of_two_agents_wait_for_each_other,
        line::what_a_task_touches_may_be_known_late,
        line::what_an_ended_agent_leaves_behind_moves_on,
        map::children_in_order,
        map::extending_again_changes_nothing,
        map::no_more_than_at_once,
        map::empty,
        map::partial,
        map::ten_thousand_wide,
        map::a_child_of_an_ended_map_is_cancelled,
        agents::a_turn_its_calls_and_the_answer,
        agents::a_repeat_adds_nothing,
        agents::what_does_not_fit_is_refused_whole,
        agents::a_maps_child_keeps_its_name,
        agents::behind_inputs_that_have_ended,
        agents::what_nobody_waits_for_ends_with_its_adder,
        agents::a_vital_task_takes_its_agent_along,
        agents::a_skipped_vital_task_takes_its_agent_along,
        agents::orphans_are_told,
        agents::an_agent_that_needs_no_steps,
        agents::an_agent_inside_an_agent,
        agents::the_next_step_goes_on_in_the_same_hands,
        agents::what_is_left_of_the_budget,
        agents::the_time_of_its_tasks_ends_with_it,
        agents::the_window_of_an_added_join,
        pause::nothing_starts_and_all_of_it_goes_on_when_resumed,
        pause::no_successor_is_taken_along,
        replay::of_a_dead_letter_does_only_what_is_missing,
        replay::of_a_map_keeps_what_its_children_made,
        replay::is_refused_for_what_has_not_failed,
        retention::is_the_runs_own_and_failed_ones_may_have_another,
        retention::ends_when_the_run_is_deleted,
        cancel::nothing_starts_after_it,
        cancel::only_once,
        cancel::attempts_are_told,
        deadline::a_sweep_says_when_the_next_one_is_due,
        deadline::of_the_run,
        deadline::of_the_run_met_by_a_failing_attempt,
        deadline::of_a_task,
        deadline::a_sweep_is_bounded_and_says_that_there_is_more,
        hints::reach_a_consumer_that_comes_later,
        hints::no_more_unacked_than_slots,
        hints::unacked_ones_come_again,
        hints::say_their_priority,
        hints::none_for_the_successor_handed_over,
        hints::unclaimed_ones_are_published_again,
        hints::losers_are_aborted,
        events::tell_the_story_without_gaps,
        events::a_watch_wakes,
        events::a_follower_sees_every_event_once,
        list::newest_first_page_by_page,
        list::filters,
        traces::goes_to_the_worker_with_the_input,
        traces::an_end_is_told_once,
        large::results_come_back_whole,
        large::too_large_is_refused,
        deltas::stand_in_the_log,
        deltas::of_an_ended_run_are_dropped,
        access::keys_are_kept_until_they_are_dropped,
        access::a_rate_is_held,
        access::a_run_belongs_to_a_tenant,
        access::tenants_list_their_own_runs,
        access::only_so_many_runs_of_a_key_at_once,
        access::a_replay_that_ends_at_once_frees_its_place,
        access::a_deadline_frees_its_place,
    ]
}

/// Runs every story, each on a subject that `new` makes for it by name; panics with the list of those that
/// failed.
pub async fn exercise<F, S>(new: F)
where
    F: Fn(&'static str) -> S,
    S: Future<Output = Subject>,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    let told = stories().len();
    for (name, story) in stories() {
        let turn = turns.clone().acquire_owned().await.unwrap();
        let subject = new(name).await;
        let stage = Stage::new(subject.clone());
        let pool = stage.pool();
        let task = running.spawn(async move {
            // a story that fails must be cleaned up after as well
            let told = tokio::spawn(story(stage)).await;
            if let Some(clean) = subject.clean {
                clean(pool).await;
            }
            drop(turn);
            if let Err(error) = told {
                std::panic::resume_unwind(error.into_panic());
            }
        });
        names.insert(task.id(), name);
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next_with_id().await {
        if let Err(error) = ended {
            failed.push(format!("{}: {error}", names[&error.id()]));
        }
    }
    assert!(failed.is_empty(), "{} of {told} stories failed:\n{}", failed.len(), failed.join("\n"));
}
