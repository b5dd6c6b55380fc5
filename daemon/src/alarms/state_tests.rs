//! Every step between every two states, as a table that can be laid beside ISA-18.2's own drawing.

use super::*;
use AlarmState::{Acknowledged, Normal, OutOfService, Returned, Shelved, Suppressed, Unacknowledged};

const STATES: [AlarmState; 7] =
    [Unacknowledged, Acknowledged, Returned, Normal, Shelved, Suppressed, OutOfService];

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// An alarm in this state; what is held is active and acknowledged beneath.
fn in_state(state: AlarmState) -> Standing {
    let held = |kind| Some(Hold { kind, by: Holder::Operator });
    let (active, acknowledged, hold) = match state {
        Unacknowledged => (true, false, None),
        Acknowledged => (true, true, None),
        Returned => (false, false, None),
        Normal => (false, true, None),
        Shelved => (true, true, held(HoldKind::Shelved { until: moment(9) })),
        Suppressed => (true, true, held(HoldKind::Suppressed)),
        OutOfService => (true, true, held(HoldKind::OutOfService)),
    };
    Standing { active, acknowledged, hold }
}

/// `-`: refused. The columns are [`STATES`].
const TABLE: &str = "
event        U A R N  S  P  O
Occurred     U U U U  S  P  O
Returned     R N R N  S  P  O
Acknowledge  A - N -  -  -  -
Shelve       S S S S  S  -  -
Unshelve     - - - -  U  -  -
Suppress     P P P P  -  -  -
Unsuppress   - - - -  -  U  -
Design       P P P P  -  -  -
DesignOver   - - - -  -  -  -
TakeOut      O O O O  -  -  -
PutBack      - - - -  -  -  U
Clear        N N N -  -  -  -
SaidU        U A U U  S  P  O
SaidA        A A A A  S  P  O
SaidR        R N R N  S  P  O
SaidN        N N N N  S  P  O
SaidS        S S S S  S  P  O
SaidP        P P P P  S  P  O
SaidO        O O O O  S  P  O";

fn letter(state: AlarmState) -> &'static str {
    match state {
        Unacknowledged => "U",
        Acknowledged => "A",
        Returned => "R",
        Normal => "N",
        Shelved => "S",
        Suppressed => "P",
        OutOfService => "O",
    }
}

fn event(name: &str) -> Event {
    match name {
        "Occurred" => Event::Occurred,
        "Returned" => Event::Returned,
        "Acknowledge" => Event::Acknowledge,
        "Shelve" => Event::Shelve(moment(20)),
        "Unshelve" => Event::Unshelve,
        "Suppress" => Event::Suppress,
        "Unsuppress" => Event::Unsuppress,
        "Design" => Event::Design,
        "DesignOver" => Event::DesignOver,
        "TakeOut" => Event::TakeOut,
        "PutBack" => Event::PutBack,
        "Clear" => Event::Clear,
        said => {
            let state = STATES.into_iter().find(|s| said == format!("Said{}", letter(*s))).unwrap();
            Event::Said(state, moment(30))
        }
    }
}

#[test]
fn every_event_in_every_state() {
    let mut steps = 0;
    for line in TABLE.trim().lines().skip(1) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        for (from, wanted) in STATES.into_iter().zip(words) {
            let after = in_state(from).after(event(name));
            let found = after.map_or("-", |s| letter(s.state()));
            assert_eq!(found, wanted, "{name} in {from:?}");
            steps += 1;
        }
    }
    assert_eq!(steps, 19 * 7, "the table is whole");
}

#[test]
fn what_is_held_follows_its_condition() {
    for (hold, release) in [
        (Event::Shelve(moment(5)), Event::Unshelve),
        (Event::Suppress, Event::Unsuppress),
        (Event::Design, Event::DesignOver),
        (Event::TakeOut, Event::PutBack),
    ] {
        let through = |from: AlarmState, meanwhile: &[Event]| {
            let mut standing = in_state(from).after(hold).unwrap();
            for event in meanwhile {
                standing = standing.after(*event).unwrap();
                assert_ne!(standing.hold, None, "nothing but its release brings it back");
            }
            standing.after(release).unwrap().state()
        };
        assert_eq!(through(Acknowledged, &[]), Unacknowledged, "still going on: announced anew");
        assert_eq!(through(Acknowledged, &[Event::Returned]), Normal);
        assert_eq!(through(Unacknowledged, &[Event::Returned]), Returned);
        assert_eq!(through(Normal, &[]), Normal);
        assert_eq!(through(Normal, &[Event::Occurred]), Unacknowledged);
        assert_eq!(
            through(Normal, &[Event::Occurred, Event::Returned]),
            Returned,
            "it was, and nobody saw it"
        );
    }
}

#[test]
fn a_source_takes_back_only_what_it_held_itself() {
    let ours = in_state(Unacknowledged).after(Event::Suppress).unwrap();
    assert_eq!(ours.after(Event::Said(Normal, moment(1))).unwrap().state(), Suppressed);
    let theirs = in_state(Unacknowledged).after(Event::Said(Shelved, moment(7))).unwrap();
    assert_eq!((theirs.state(), theirs.until()), (Shelved, Some(moment(7))));
    assert_eq!(theirs.after(Event::Said(Unacknowledged, moment(1))).unwrap().state(), Unacknowledged);
    assert_eq!(theirs.after(Event::Unshelve).unwrap().state(), Unacknowledged, "our operators may, too");
}

#[test]
fn what_the_configuration_holds_only_the_configuration_lets_go() {
    let held = in_state(Unacknowledged).after(Event::Design).unwrap();
    assert_eq!(held.state(), Suppressed);
    assert_eq!(held.after(Event::Unsuppress).unwrap_err(), Refused::Design);
    assert_eq!(held.after(Event::Said(Normal, moment(1))).unwrap().state(), Suppressed);
    assert_eq!(held.after(Event::DesignOver).unwrap().state(), Unacknowledged);
}

#[test]
fn a_refusal_says_what_to_do() {
    let why = |state, event| in_state(state).after(event).unwrap_err().to_string();
    assert_eq!(why(Acknowledged, Event::Acknowledge), "it is acknowledged already");
    assert_eq!(why(Shelved, Event::Acknowledge), "it is shelved: unshelve it first");
    assert_eq!(why(OutOfService, Event::Clear), "it is out-of-service: put it back in-service first");
    assert_eq!(why(Normal, Event::Unshelve), "it is not shelved, it is normal");
}

#[test]
fn the_words_are_the_contracts() {
    for state in STATES {
        assert_eq!(serde_json::to_value(state).unwrap(), word(state));
    }
}
