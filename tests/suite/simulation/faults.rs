//! What goes wrong, and when: at which write, watch event, read or question of the controller, and how.
//!
//! Writes (to the API server and proxies, and pushes), events, reads (lists and fetches) and answers of proxies are counted
//! from [`Faults::arm`] on, so that a test may go through every one of them.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::random::Random;

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The controller dies before it.
    CrashBefore,
    /// The controller dies after it.
    CrashAfter,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// It never arrives.
    NotSent,
    /// Somebody else was first: 409, or a branch that moved.
    Conflict,
    /// 429.
    Busy,
}

/// What happens to a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// It never comes; the next list heals it.
    Drop,
    /// It and everything later of its kind comes a minute late.
    Delay,
    /// It comes twice.
    Duplicate,
    /// The next one comes before it.
    Swap,
}

/// What happens when the outside is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// The answer never comes.
    NoAnswer,
    /// Whoever is asked has just started anew, and knows nothing.
    Forgotten,
}

/// Which earlier state a read is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// The one before the last change.
    Last,
    /// Half way back to when the faults were armed.
    Half,
    /// The one when the faults were armed.
    First,
}

/// One fault, at the so-manieth write, event, read or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Write(usize, WriteFault),
    Event(usize, EventFault),
    Read(usize, Earlier),
    Answer(usize, AnswerFault),
}

pub const WRITE_FAULTS: [WriteFault; 4] =
    [WriteFault::CrashBefore, WriteFault::CrashAfter, WriteFault::AnswerLost, WriteFault::NotSent];
pub const EVENT_FAULTS: [EventFault; 4] =
    [EventFault::Drop, EventFault::Delay, EventFault::Duplicate, EventFault::Swap];
pub const ANSWER_FAULTS: [AnswerFault; 2] = [AnswerFault::NoAnswer, AnswerFault::Forgotten];
pub const EARLIER: [Earlier; 3] = [Earlier::Last, Earlier::Half, Earlier::First];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(at, how) => write!(f, "write:{at}:{how:?}"),
            Self::Event(at, how) => write!(f, "event:{at}:{how:?}"),
            Self::Read(at, how) => write!(f, "read:{at}:{how:?}"),
            Self::Answer(at, how) => write!(f, "answer:{at}:{how:?}"),
        }
    }
}

impl Fault {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (what, at, how) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        match what {
            "write" => WRITE_FAULTS.iter().find(|one| format!("{one:?}") == how).map(|one| Self::Write(at, *one)),
            "event" => EVENT_FAULTS.iter().find(|one| format!("{one:?}") == how).map(|one| Self::Event(at, *one)),
            "answer" => ANSWER_FAULTS.iter().find(|one| format!("{one:?}") == how).map(|one| Self::Answer(at, *one)),
            "read" => EARLIER.iter().find(|one| format!("{one:?}") == how).map(|one| Self::Read(at, *one)),
            _ => None,
        }
    }
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub writes: usize,
    pub events: usize,
    pub reads: usize,
    /// Of proxies.
    pub answers: usize,
}

/// How likely faults are, in thousandths, when they are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    pub write: u64,
    pub event: u64,
    pub read: u64,
    pub crash: u64,
    pub events: &'static [EventFault],
}

/// What somebody does at the so-manieth write.
type Meanwhile = (usize, Box<dyn FnOnce() + Send>);

/// A fault that comes once, at the first write whose description is as wanted.
type Once = (Box<dyn Fn(&str) -> bool + Send>, WriteFault);

struct State {
    armed: bool,
    counts: Counts,
    planned: Vec<Fault>,
    drawn: Option<(Random, Odds)>,
    /// Which write fault comes at every write until this is taken back.
    always: Option<WriteFault>,
    once: Option<Once>,
    /// The same, until it is taken back.
    every: Option<Once>,
    meanwhile: Option<Meanwhile>,
    /// How long each write takes, one after the other, and when the next may begin.
    pace: Option<(Duration, Instant)>,
    /// What every read is answered with until this is taken back.
    stale: Option<Earlier>,
    /// Which life of the controller is the present one: those before are dead.
    life: u64,
    crashes: u32,
    /// In which life a read was last drawn to be stale.
    misled: u64,
    log: Vec<Fault>,
}

/// What goes wrong. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    crashed: Arc<Notify>,
}

impl Default for Faults {
    fn default() -> Self {
        let state = State {
            armed: false,
            counts: Counts::default(),
            planned: Vec::new(),
            drawn: None,
            always: None,
            once: None,
            every: None,
            meanwhile: None,
            pace: None,
            stale: None,
            life: 0,
            crashes: 0,
            misled: 0,
            log: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), crashed: Arc::default() }
    }
}

impl Faults {
    /// Counts from here on, and does what is planned.
    pub fn arm(&self, planned: &[Fault]) {
        let mut state = self.state.lock().unwrap();
        state.armed = true;
        state.counts = Counts::default();
        state.planned = planned.to_vec();
    }

    /// Draws faults from here on.
    pub fn draw(&self, random: Random, odds: Odds) {
        let mut state = self.state.lock().unwrap();
        state.armed = true;
        state.drawn = Some((random, odds));
    }

    /// Nothing goes wrong any more.
    pub fn disarm(&self) {
        let mut state = self.state.lock().unwrap();
        state.armed = false;
        state.drawn = None;
        state.always = None;
    }

    /// Does the same to every write; `None` ends it.
    pub fn always(&self, fault: Option<WriteFault>) {
        self.state.lock().unwrap().always = fault;
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().unwrap().counts
    }

    pub fn crashes(&self) -> u32 {
        self.state.lock().unwrap().crashes
    }

    /// Returns what went wrong, in order.
    pub fn log(&self) -> Vec<Fault> {
        self.state.lock().unwrap().log.clone()
    }

    /// Begins another life of the controller; all before are dead.
    pub fn new_life(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.life += 1;
        state.life
    }

    /// Kills the controller that lives.
    pub fn crash(&self) {
        {
            let mut state = self.state.lock().unwrap();
            state.life += 1;
            state.crashes += 1;
        }
        self.crashed.notify_one();
    }

    /// Returns when the controller has been killed by a fault.
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }

    /// Never returns to a controller that is dead.
    pub fn alive(&self, life: u64) -> impl Future<Output = ()> + Send + use<> {
        let dead = self.state.lock().unwrap().life != life;
        async move {
            if dead {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Lets a fault come once, at the first write or push whose description is as wanted.
    pub fn once(&self, fault: WriteFault, wanted: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().unwrap().once = Some((Box::new(wanted), fault));
    }

    /// Lets a fault come at every write or push whose description is as wanted, until it is taken back.
    pub fn every(&self, fault: WriteFault, wanted: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().unwrap().every = Some((Box::new(wanted), fault));
    }

    /// Takes that back.
    pub fn no_more(&self) {
        self.state.lock().unwrap().every = None;
    }

    /// Lets somebody do something when the so-manieth write or push is on its way.
    pub fn meanwhile(&self, write: usize, act: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().meanwhile = Some((write, Box::new(act)));
    }

    /// Lets writes to the cluster go through one after the other, each taking so long.
    pub fn pace(&self, each: Duration) {
        self.state.lock().unwrap().pace = Some((each, Instant::now()));
    }

    /// Answers every read with an earlier state; `None` ends it.
    pub fn stale(&self, earlier: Option<Earlier>) {
        self.state.lock().unwrap().stale = earlier;
    }

    /// Returns when a write's turn has come.
    pub async fn wait_for_turn(&self) {
        let at = {
            let mut state = self.state.lock().unwrap();
            let Some((each, next)) = &mut state.pace else { return };
            let at = (*next).max(Instant::now());
            *next = at + *each;
            at
        };
        tokio::time::sleep_until(at).await;
    }

    pub fn on_write(&self, described: impl Fn() -> String) -> Option<WriteFault> {
        let due = {
            let mut state = self.state.lock().unwrap();
            let at = state.counts.writes;
            let armed = state.armed;
            state.meanwhile.take_if(|(write, _)| armed && *write == at)
        };
        if let Some((_, act)) = due {
            act();
        }
        let mut state = self.state.lock().unwrap();
        if state.once.as_ref().is_some_and(|(wanted, _)| wanted(&described())) {
            return state.once.take().map(|(_, fault)| fault);
        }
        if let Some((wanted, fault)) = &state.every
            && wanted(&described())
        {
            return Some(*fault);
        }
        let at = state.counts.writes;
        state.counts.writes += usize::from(state.armed);
        if let Some(fault) = state.always {
            return Some(fault);
        }
        if !state.armed {
            return None;
        }
        let planned = state.planned.iter().find_map(|fault| match fault {
            Fault::Write(planned, how) if *planned == at => Some(*how),
            _ => None,
        });
        let drawn = state.drawn.as_mut().and_then(|(random, odds)| {
            if random.below(1000) < odds.crash {
                return Some(*random.pick(&[WriteFault::CrashBefore, WriteFault::CrashAfter]));
            }
            let faults = [WriteFault::AnswerLost, WriteFault::NotSent, WriteFault::Conflict, WriteFault::Busy];
            (random.below(1000) < odds.write).then(|| *random.pick(&faults))
        });
        let fault = planned.or(drawn)?;
        state.log.push(Fault::Write(at, fault));
        Some(fault)
    }

    pub fn on_event(&self) -> Option<EventFault> {
        let mut state = self.state.lock().unwrap();
        if !state.armed {
            return None;
        }
        let at = state.counts.events;
        state.counts.events += 1;
        let planned = state.planned.iter().find_map(|fault| match fault {
            Fault::Event(planned, how) if *planned == at => Some(*how),
            _ => None,
        });
        let drawn = state
            .drawn
            .as_mut()
            .and_then(|(random, odds)| (random.below(1000) < odds.event).then(|| *random.pick(odds.events)));
        let fault = planned.or(drawn)?;
        state.log.push(Fault::Event(at, fault));
        Some(fault)
    }

    pub fn on_answer(&self) -> Option<AnswerFault> {
        let mut state = self.state.lock().unwrap();
        if !state.armed {
            return None;
        }
        let at = state.counts.answers;
        state.counts.answers += 1;
        let fault = state.planned.iter().find_map(|fault| match fault {
            Fault::Answer(planned, how) if *planned == at => Some(*how),
            _ => None,
        })?;
        state.log.push(Fault::Answer(at, fault));
        Some(fault)
    }

    pub fn on_read(&self) -> Option<Earlier> {
        let mut state = self.state.lock().unwrap();
        if state.stale.is_some() {
            return state.stale;
        }
        if !state.armed {
            return None;
        }
        let at = state.counts.reads;
        state.counts.reads += 1;
        let planned = state.planned.iter().find_map(|fault| match fault {
            Fault::Read(planned, how) if *planned == at => Some(*how),
            _ => None,
        });
        let drawn = state
            .drawn
            .as_mut()
            .and_then(|(random, odds)| (random.below(1000) < odds.read).then(|| *random.pick(&EARLIER)));
        // One answer from the past contradicts all others. Two of them, to a controller that knows nothing, are the past:
        // nobody could tell, and lists come from etcd, so that they are never that old.
        let drawn = drawn.filter(|_| state.misled != state.life);
        state.misled = if drawn.is_some() { state.life } else { state.misled };
        let fault = planned.or(drawn)?;
        state.log.push(Fault::Read(at, fault));
        Some(fault)
    }
}
