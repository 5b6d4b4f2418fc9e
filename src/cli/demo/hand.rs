//! Who goes through the gates: a person at this terminal or another, or the demo alone.

use tokio::sync::mpsc;

/// Who types.
pub enum Hand {
    /// `--yes`: the demo runs every command as soon as it has shown it.
    Alone,
    /// A person: Enter runs the commands, unless they were typed elsewhere.
    Person(mpsc::UnboundedReceiver<()>),
}

/// Why the commands are to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Somebody pressed Enter, or nobody is asked.
    Go,
    /// Standard input has ended just now.
    Ended,
}

impl Hand {
    /// Listens for Enter, unless the demo is to run alone.
    pub fn new(alone: bool) -> Self {
        if alone {
            return Self::Alone;
        }
        let (pressed, presses) = mpsc::unbounded_channel();
        // A thread and not a task: a read of the terminal cannot be given up, and must not hold up the end.
        std::thread::spawn(move || {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) && pressed.send(()).is_ok() {
                line.clear();
            }
        });
        Self::Person(presses)
    }

    /// Returns whether nobody is asked.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Alone)
    }

    /// Forgets what was pressed while nothing was asked.
    pub fn forget(&mut self) {
        if let Self::Person(presses) = self {
            while presses.try_recv().is_ok() {}
        }
    }

    /// Returns when Enter is pressed, or once nobody can press it any more, as standard input has ended: from there on the
    /// demo runs alone. At once where it does already. Cancel safe.
    pub async fn enter(&mut self) -> Entered {
        match self {
            Self::Alone => Entered::Go,
            Self::Person(presses) => match presses.recv().await {
                Some(()) => Entered::Go,
                None => {
                    *self = Self::Alone;
                    Entered::Ended
                }
            },
        }
    }
}
