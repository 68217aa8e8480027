//! What passes from filter to filter as bytes.

use ai_fallback::core::config::Config;
use ai_fallback::core::fit::Header;
use ai_fallback::core::handoff::{Handoff, PackedHeaders};
use ai_fallback::core::outcome::{Ended, Outcome};
use ai_fallback::core::plan::{Health, Plan};
use ai_fallback::core::progress::{Progress, Room};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::rig::*;

fn config_called(name: &str) -> Config {
    let mut api = api(to_with(
        &["b", "c"],
        json!({
            "error_services": {"context_length": [{"service": "d", "model": "long", "retries": 2}], "overloaded": [{"service": "c"}]},
            "total_timeout_ms": 9_000, "deliver": "complete", "client_models": {},
        }),
    ));
    api["name"] = json!(name);
    config(&json!({"services": services(), "model_apis": [api]}))
}

fn plan_for(models: &[String], stream: bool, health: &[Health]) -> Plan {
    let config = config_called("chat");
    let request = ai_fallback::core::plan::Request {
        models,
        stream,
        ..Default::default()
    };
    let mut plan = Plan::new(&config, &config.model_apis[0], &request, None).unwrap();
    plan.check_health(|service, _| {
        let at = ["a", "b", "c", "d"]
            .iter()
            .position(|name| *name == service);
        (health[at.unwrap()], ms(at.unwrap() as u64))
    });
    plan
}

fn health() -> impl Strategy<Value = Vec<Health>> {
    vec(
        select(vec![Health::Good, Health::Troubled, Health::Cooling]),
        4,
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let entry = select(vec!["m", "c:\u{e9}", "d/org/m"]).prop_map(str::to_owned);
    (vec(entry, 0..4), any::<bool>(), health())
        .prop_map(|(models, stream, health)| plan_for(&models, stream, &health))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let word = select(Outcome::WORDS.to_vec()).prop_map(|(_, outcome)| outcome);
    prop_oneof![
        (0..=999_u16).prop_map(Outcome::Status),
        (0..=999_u16).prop_map(Outcome::Intercepted),
        (0..=999_u16).prop_map(Outcome::Refused),
        word,
    ]
}

fn end() -> impl Strategy<Value = (Ended, u64)> {
    let retry_after = option::of((0..100_000_u64).prop_map(ms));
    (outcome(), retry_after, any::<bool>(), 0..100_000_u64).prop_map(
        |(outcome, retry_after, fails, took)| {
            let ended = Ended {
                outcome,
                kind: None,
                retry_after,
                fails,
            };
            (ended, took)
        },
    )
}

fn header() -> impl Strategy<Value = Header> {
    ("[a-z:-]{0,9}", vec(any::<u8>(), 0..9))
}

proptest! {
    #[test]
    fn a_handoff_is_read_as_it_was_written(
        plan in plan(),
        deadline in option::of(1..u64::from(u32::MAX) * 1_000),
        judges in any::<bool>(),
        hops in option::of(1..100_u32),
        tells_all in any::<bool>(),
        original in vec(header(), 0..5),
    ) {
        let handoff = Handoff {
            plan,
            deadline: deadline.map(ms),
            judges,
            uncompressed: !judges,
            hops,
            tells_all,
        };
        let mut bytes = handoff.encode();
        let packed = PackedHeaders::pack(&original);
        prop_assert_eq!(PackedHeaders::read(packed.as_bytes().to_vec()).unpack(), Some(original));
        prop_assert_eq!(Handoff::decode(&config_called("chat"), &bytes), Some(handoff));
        prop_assert_eq!(Handoff::decode(&config_called("other"), &bytes), None);
        // Another version of the filter may have written it otherwise.
        bytes[0] += 1;
        prop_assert_eq!(Handoff::decode(&config_called("chat"), &bytes), None);
    }

    #[test]
    fn a_progress_is_read_as_it_was_written(
        plan in plan(),
        ends in vec(end(), 0..6),
        left in option::of((0..9_000_u64).prop_map(ms)),
        random: u64,
        answering: bool,
    ) {
        let mut progress = Progress::begin(&plan);
        for (ended, took) in ends {
            let room = Room { left, max_wait: None, random };
            if !progress.end(&plan, ended, ms(took), room) {
                break;
            }
        }
        if answering {
            progress.begins_to_answer();
        }
        let read = Progress::decode(&progress.encode()).unwrap();
        prop_assert_eq!(read.encode(), progress.encode());
        prop_assert_eq!(read.trail(), progress.trail());
        prop_assert_eq!(
            (read.current(), read.made(), read.took(), read.wait()),
            (progress.current(), progress.made(), progress.took(), progress.wait())
        );
        prop_assert_eq!(
            (read.is_exhausted(), read.is_repeat(), read.is_answering()),
            (progress.is_exhausted(), progress.is_repeat(), progress.is_answering())
        );
        prop_assert_eq!(read.last().map(|ended| ended.outcome), progress.last().map(|ended| ended.outcome));
        let (mut read, mut progress) = (read, progress);
        prop_assert_eq!(read.take_reports(), progress.take_reports());
    }

    #[test]
    fn bytes_that_were_cut_or_changed_do_no_harm(
        plan in plan(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 0..120),
    ) {
        let config = config_called("chat");
        let mut progress = Progress::begin(&plan);
        progress.end(&plan, ended(&plan, Outcome::Status(503)), ms(5), Room::default());
        let handoff = Handoff {
            plan: plan.clone(),
            deadline: Some(ms(7)),
            judges: true,
            uncompressed: false,
            hops: Some(1),
            tells_all: true,
        };
        for mut bytes in [progress.encode(), handoff.encode(), noise] {
            for (at, byte) in &changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len() + 1)]] {
                let _ = Handoff::decode(&config, bytes);
                let _ = PackedHeaders::read(bytes.to_vec()).unpack();
                let _ = Plan::take(&config, &mut { bytes });
                if let Some(mut progress) = Progress::decode(bytes) {
                    let ended = ended(&plan, Outcome::Reset);
                    for _ in 0..9 {
                        progress.end(&plan, ended, ms(1), Room::default());
                    }
                }
            }
        }
    }
}

#[test]
fn a_handoff_ends_where_its_model_api_is_not() {
    let plan = plan_for(&[], false, &[Health::Good; 4]);
    let mut bytes = Vec::new();
    plan.put(&mut bytes);
    assert_eq!(
        Plan::take(&config_called("chat"), &mut &bytes[..]),
        Some(plan)
    );
    assert_eq!(Plan::take(&config_called("other"), &mut &bytes[..]), None);
    bytes[0] = 7;
    assert_eq!(Plan::take(&config_called("chat"), &mut &bytes[..]), None);
}
