//! Keeps a number of requests in flight, and measures the latency of each request.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::front_end::FrontEnd;
use super::plan::Workload;

/// The interval at which a sleeping front-end wakes up to check the time.
const TICK: Duration = Duration::from_secs(1);

/// The maximum time for which a load may continue after its planned time.
const PATIENCE: Duration = Duration::from_secs(15);

/// The results of one run of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The duration of the run.
    pub elapsed: Duration,
    /// The time from submission to completion of each request, in nanoseconds.
    pub latencies: Vec<u32>,
}

/// Generates the requests of one workload.
pub struct Load {
    front_end: Box<dyn FrontEnd>,
    workload: Workload,
    started: Vec<Instant>,
    random: u64,
    _ticker: Ticker,
}

impl Load {
    /// Prepares a load for a front-end that has a buffer for each request in flight.
    pub fn new(front_end: Box<dyn FrontEnd>, workload: Workload) -> Result<Self> {
        let ticker = Ticker::start(front_end.alarm()?);
        Ok(Self {
            started: vec![Instant::now(); workload.depth],
            front_end,
            workload,
            // The seed of the random numbers is an arbitrary odd number. It is the same for each
            // peer, so all peers get the same requests.
            random: 0x9e37_79b9_7f4a_7c15,
            _ticker: ticker,
        })
    }

    /// Sends requests for the given time, and then waits for the requests in flight.
    pub fn run(&mut self, time: Duration) -> Result<Outcome> {
        let begin = Instant::now();
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut ended: Vec<usize> = (0..self.workload.depth).collect();
        let mut in_flight = 0;
        loop {
            let now = Instant::now();
            let running = now - begin < time;
            if running {
                in_flight += ended.len();
                self.submit(&ended, now)?;
            } else if in_flight == 0 {
                break;
            }
            ensure!(now - begin < time + PATIENCE, "requests do not end");
            ended.clear();
            self.await_some(&mut ended)?;
            let now = Instant::now();
            in_flight -= ended.len();
            latencies.extend(
                ended
                    .iter()
                    .map(|&slot| nanoseconds(now - self.started[slot])),
            );
        }
        Ok(Outcome {
            elapsed: begin.elapsed(),
            latencies,
        })
    }

    fn submit(&mut self, slots: &[usize], now: Instant) -> Result<()> {
        for &slot in slots {
            self.started[slot] = now;
            let block = self.next_block();
            self.front_end.submit(self.workload.write, block, slot)?;
        }
        match slots {
            [] => Ok(()),
            _ => self.front_end.kick(),
        }
    }

    /// Waits until requests have completed or the `Ticker` wakes the front-end. Adds the slots of
    /// the completed requests to `ended`.
    fn await_some(&mut self, ended: &mut Vec<usize>) -> Result<()> {
        self.front_end.ended(ended)?;
        if ended.is_empty() {
            self.front_end.wait()?;
            self.front_end.ended(ended)?;
        }
        Ok(())
    }

    /// The number of a random block, from an xorshift generator. The generator is fast, and its
    /// numbers are random enough to make read-ahead useless.
    fn next_block(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % self.front_end.blocks()
    }
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// Wakes a front-end at intervals. Otherwise, the front-end would wait forever if a faulty back-end
/// sends no call.
struct Ticker {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    fn start(alarm: OwnedFd) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                thread::park_timeout(TICK);
                let _ = rustix::io::write(&alarm, &1u64.to_ne_bytes());
            }
        });
        Self {
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
