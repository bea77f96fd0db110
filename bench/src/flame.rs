//! Flame graphs in text: stacks that perf sampled, folded, as a tree and by function.
//!
//! Stacks are cut down to what people look for: functions of this repository and of the libraries that
//! do work, the system call that a kernel stack belongs to, and the function at the top.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Parts of the tree that take less are left out, in percent.
const LEAST_PERCENT: f64 = 1.0;
/// Functions in the list.
const FUNCTIONS: usize = 25;
/// Names that begin so only lead to others: the standard library, the runtime, combinators, layers.
const PLUMBING: [&str; 17] = [
    "std::",
    "core::",
    "alloc::",
    "tokio::",
    "tokio_util::",
    "futures_util::",
    "axum::",
    "tower::",
    "tower_http::",
    "mio::",
    "http::",
    "hyper_util::",
    "start_thread",
    "clone",
    "_start",
    "__libc_start",
    "F::",
];
/// Stacks that take less are one line together, in percent.
const LEAST_FOLDED_PERCENT: f64 = 0.1;
/// Files whose inlined functions have a name in a stack.
const OWN_FILES: [&str; 2] = ["/crates/", "/integrations/"];

/// Sampled stacks, from the thread's name to the function at the top, and how often each was seen.
#[derive(Debug, Default)]
pub struct Flame {
    stacks: BTreeMap<Vec<String>, u64>,
    samples: u64,
}

/// One line of a stack as perf prints it.
struct Frame<'a> {
    address: u64,
    symbol: &'a str,
    object: &'a str,
}

impl Flame {
    /// Reads what `perf script -F comm,ip,sym,dso` wrote. Functions that were inlined into `program` are
    /// found by its line tables, if it has them.
    pub fn of(script: &str, program: &Path) -> Flame {
        let samples: Vec<(&str, Vec<Frame<'_>>)> = script.split("\n\n").filter_map(sample).collect();
        let shown = program.display().to_string();
        let own = samples.iter().flat_map(|(_, frames)| frames).filter(|frame| frame.object == shown);
        let inlined = inlined(program, own.map(|frame| frame.address));
        let mut flame = Flame::default();
        for (thread, frames) in &samples {
            let mut stack = vec![thread.to_string()];
            stack.extend(readable(frames, &inlined));
            *flame.stacks.entry(stack).or_default() += 1;
            flame.samples += 1;
        }
        flame
    }

    /// How many samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// One line per stack, as flame graph programs read it; rare ones are summed up.
    pub fn folded(&self) -> String {
        let is_rare = |count: u64| self.percent(count) < LEAST_FOLDED_PERCENT;
        let often = self.stacks.iter().filter(|(_, count)| !is_rare(**count));
        let mut text: String = often.map(|(stack, count)| format!("{} {count}\n", stack.join(";"))).collect();
        let rare: u64 = self.stacks.values().filter(|count| is_rare(**count)).sum();
        if rare > 0 {
            let _ = writeln!(text, "(stacks below {LEAST_FOLDED_PERCENT} %) {rare}");
        }
        text
    }

    /// The stacks as a tree; what always comes together stands in one line.
    pub fn tree(&self) -> String {
        let stacks: Vec<(&[String], u64)> = self.stacks.iter().map(|(stack, count)| (&stack[..], *count)).collect();
        let mut text = String::new();
        self.branch(&stacks, 0, &mut text);
        text
    }

    fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.samples.max(1) as f64
    }

    fn branch(&self, stacks: &[(&[String], u64)], depth: usize, text: &mut String) {
        for (name, (count, below)) in children(stacks) {
            let percent = self.percent(count);
            if percent < LEAST_PERCENT {
                continue;
            }
            let (mut line, mut below) = (name.to_owned(), below);
            loop {
                let next = children(&below);
                let Some((only, (whole, further))) = next.into_iter().next().filter(|(_, (n, _))| *n == count) else {
                    break;
                };
                let _ = write!(line, " > {only}");
                (below, _) = (further, whole);
            }
            let _ = writeln!(text, "{}{percent:5.1} %  {line}", "  ".repeat(depth));
            self.branch(&below, depth + 1, text);
        }
    }

    /// The functions at the top of the stacks that take most.
    pub fn functions(&self) -> String {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (stack, count) in &self.stacks {
            if let Some(top) = stack.last() {
                *sums.entry(top).or_default() += count;
            }
        }
        let mut sums: Vec<(&str, u64)> = sums.into_iter().collect();
        sums.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        let line = |(name, count): &(&str, u64)| format!("{:5.1} %  {name}\n", self.percent(*count));
        sums.iter().take(FUNCTIONS).map(line).collect()
    }
}

/// Below one place in the tree: what comes next, how often, and the stacks from there on; the most frequent first.
type Children<'a> = Vec<(&'a str, Below<'a>)>;
type Below<'a> = (u64, Vec<(&'a [String], u64)>);

fn children<'a>(stacks: &[(&'a [String], u64)]) -> Children<'a> {
    let mut below: BTreeMap<&str, Below<'_>> = BTreeMap::new();
    for (stack, count) in stacks {
        if let [first, rest @ ..] = stack {
            let (sum, stacks) = below.entry(first).or_default();
            *sum += count;
            stacks.push((rest, *count));
        }
    }
    let mut below: Children<'_> = below.into_iter().collect();
    below.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    below
}

/// The thread's name, and its frames, the function at the top first.
fn sample(text: &str) -> Option<(&str, Vec<Frame<'_>>)> {
    let mut lines = text.trim_matches('\n').lines();
    let thread = lines.next()?.trim();
    let frames = lines.filter_map(|line| {
        let (address, rest) = line.trim().split_once(' ')?;
        let (symbol, object) = rest.rsplit_once(" (")?;
        Some(Frame { address: u64::from_str_radix(address, 16).ok()?, symbol, object: object.trim_end_matches(')') })
    });
    Some((thread, frames.collect()))
}

/// A stack as it is shown, the outermost function first.
fn readable(frames: &[Frame<'_>], inlined: &HashMap<u64, Vec<String>>) -> Vec<String> {
    let mut stack: Vec<String> = Vec::new();
    let is_kernel = |frame: &Frame<'_>| frame.object.starts_with("[kernel");
    let call = entry(frames.iter().filter(|frame| is_kernel(frame)).map(|frame| frame.symbol));
    for frame in frames.iter().rev().filter(|frame| !is_kernel(frame)) {
        stack.extend(inlined.get(&frame.address).into_iter().flatten().rev().cloned());
        if !inlined.contains_key(&frame.address) && frame.symbol != "[unknown]" {
            stack.extend(Some(clean(frame.symbol)).filter(|name| !is_plumbing(name)));
        }
    }
    if let Some(top) = frames.first().filter(|frame| is_kernel(frame)) {
        stack.push(format!("[kernel] {call}"));
        stack.push(format!("[kernel] {}", top.symbol));
    }
    stack.dedup();
    stack
}

/// How the kernel was entered: the system call, or what else; from its functions, the one at the top first.
fn entry<'a>(symbols: impl Iterator<Item = &'a str>) -> String {
    let mut above = "syscall";
    for symbol in symbols {
        match symbol {
            "do_syscall_64" => return above.trim_start_matches("__x64_sys_").trim_start_matches("do_").to_owned(),
            "asm_exc_page_fault" | "exc_page_fault" => return "page fault".into(),
            other => above = other,
        }
    }
    "interrupt".into()
}

fn is_plumbing(name: &str) -> bool {
    let name = name.trim_start_matches(['<', '&']);
    // Closures of generic functions have names with blanks.
    name.contains(' ') || PLUMBING.iter().any(|plumbing| name.starts_with(plumbing))
}

/// A name without what is generic in it: `<A as B>::f` becomes `A::f`, `A<B>::f` becomes `A::f`.
fn clean(symbol: &str) -> String {
    let symbol = match symbol.strip_prefix('<') {
        Some(rest) => match (rest.find(" as "), rest.rfind(">::")) {
            (Some(end), Some(at)) if end < at => format!("{}{}", &rest[..end], &rest[at + 1..]),
            (None, Some(at)) => format!("{}{}", &rest[..at], &rest[at + 1..]),
            _ => rest.to_owned(),
        },
        None => symbol.to_owned(),
    };
    let (mut name, mut depth) = (String::new(), 0_u32);
    for letter in symbol.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            ';' => name.push(','),
            _ if depth == 0 => name.push(letter),
            _ => {}
        }
    }
    let name = name.replace("::{{closure}}", "").replace("::::", "::");
    // The end of a path says which function it is.
    let parts: Vec<&str> = name.split("::").collect();
    let crate_name = parts.first().copied().unwrap_or_default();
    match parts.len() {
        0..=3 => name,
        length => format!("{crate_name}::{}", parts[length - 2..].join("::")),
    }
}

/// The functions at every address, the innermost first; of other files than ours only those that are not
/// inlined, and no closures.
fn inlined(program: &Path, addresses: impl Iterator<Item = u64>) -> HashMap<u64, Vec<String>> {
    let Some(shift) = code_shift(program) else { return HashMap::new() };
    let mut addresses: Vec<u64> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let lines: String = addresses.iter().map(|address| format!("{:#x}\n", address.wrapping_add(shift))).collect();
    let Some(answer) = addr2line(program, lines) else { return HashMap::new() };
    let mut found: HashMap<u64, Vec<String>> = HashMap::new();
    let mut at = None;
    let mut lines = answer.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(address) = line.strip_prefix("0x").and_then(|text| u64::from_str_radix(text, 16).ok()) {
            at = Some(address.wrapping_sub(shift));
            continue;
        }
        let (Some(address), Some(place)) = (at, lines.next()) else { break };
        if line == "??" {
            continue;
        }
        let is_outermost = lines.peek().is_none_or(|next| next.starts_with("0x"));
        let is_own = OWN_FILES.iter().any(|own| place.contains(own));
        let names = found.entry(address).or_default();
        let mut name = clean(without_hash(line));
        if !name.contains("::") && is_own {
            let file = place.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
            name = format!("{file}::{name}");
        }
        let is_closure = name.rsplit("::").next().is_none_or(|last| last.starts_with('{'));
        if name.contains("::") && (is_outermost || is_own) && !is_closure && !is_plumbing(&name) {
            names.push(name);
        }
    }
    found
}

fn without_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => symbol,
    }
}

fn addr2line(program: &Path, lines: String) -> Option<String> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-i", "-f", "-C", "-e"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    // It answers line by line, so it is fed while it is read.
    let feeding = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().ok()?;
    let _ = feeding.join();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is to be added to an offset in the file to get the address that its line tables know (ELF-64:
/// `p_vaddr - p_offset` of the segment with code).
fn code_shift(program: &Path) -> Option<u64> {
    let bytes = std::fs::read(program).ok()?;
    let number = |at: usize, length: usize| {
        let bytes = bytes.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (first, size, count) = (number(32, 8)? as usize, number(54, 2)? as usize, number(56, 2)? as usize);
    let code = (0..count).map(|at| first + at * size).find(|at| {
        // PT_LOAD with PF_X.
        number(*at, 4) == Some(1) && number(at + 4, 4).is_some_and(|flags| flags & 1 == 1)
    })?;
    Some(number(code + 16, 8)?.wrapping_sub(number(code + 8, 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
worker
\tffffffff815a3b90 copy_from_user ([kernel.kallsyms])
\tffffffff81712072 do_writev ([kernel.kallsyms])
\tffffffff821ef691 do_syscall_64 ([kernel.kallsyms])
\t           fed0a writev (/usr/lib/libc.so.6)
\t         1c4d52b weir_pipeline::queue::durable::writer::write (/weir)
\t         1ccfc6f core::ops::function::FnOnce::call_once{{vtable.shim}} (/weir)

worker
\t         19f1da7 <weir::readable::Shown<'a> as serde_core::ser::Serialize>::serialize (/weir)
\tffffffffffffffff [unknown] ([unknown])

queue
\t         1c4d52b weir_pipeline::queue::durable::writer::write (/weir)
";

    #[test]
    fn stacks_are_folded_from_the_thread_to_the_top_without_plumbing() {
        let flame = Flame::of(SCRIPT, Path::new("/no such program"));
        assert_eq!(
            flame.folded(),
            "queue;weir_pipeline::writer::write 1\n\
             worker;weir::Shown::serialize 1\n\
             worker;weir_pipeline::writer::write;writev;[kernel] writev;[kernel] copy_from_user 1\n"
        );
        assert_eq!(flame.samples(), 3);
    }

    #[test]
    fn the_tree_has_one_line_for_what_comes_together_and_the_list_has_the_tops() {
        let flame = Flame::of(SCRIPT, Path::new("/no such program"));
        assert_eq!(
            flame.tree(),
            " 66.7 %  worker\n   \
               33.3 %  weir::Shown::serialize\n   \
               33.3 %  weir_pipeline::writer::write > writev > [kernel] writev > [kernel] copy_from_user\n \
             33.3 %  queue > weir_pipeline::writer::write\n"
        );
        assert!(flame.functions().contains(" 33.3 %  [kernel] copy_from_user\n"), "{}", flame.functions());
    }
}
