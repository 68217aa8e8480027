//! The terminal: at most 120 columns, colours only where they are wanted.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use crate::ask::{Answer, Attempt};
use crate::check::Tally;
use crate::compare::Streamed;
use crate::rows::{CHUNKS, GAP_MS, Row};
use crate::stack::{Dispatch, FIRST_PACKET_TIMEOUT_MS, REQUEST_TIMEOUT_MS};

const WIDTH: usize = 120;
/// Between columns.
const GAP: &str = "  ";

struct Column {
    title: &'static str,
    width: usize,
    right: bool,
}

const fn left(title: &'static str, width: usize) -> Column {
    Column {
        title,
        width,
        right: false,
    }
}

const fn right(title: &'static str, width: usize) -> Column {
    Column {
        title,
        width,
        right: true,
    }
}

const COLUMNS: [Column; 10] = [
    right("#", 2),
    left("asked", 15),
    left("what is wrong", 26),
    left("tried", 9),
    left("came to", 20),
    right("ms", 4),
    left("client got", 11),
    right("first", 5),
    right("total", 5),
    left("", 5),
];

const COMPARISON: [Column; 8] = [
    left("what is wrong", 22),
    left("dispatch", 8),
    right("first", 6),
    right("last", 6),
    right("median", 6),
    right("max", 6),
    left("when", PICTURE),
    left("", 5),
];
/// The columns of the picture of a stream, and how long each is.
const PICTURE: usize = 30;
const PICTURE_STEP_MS: u64 = 30;

/// One cell: its lines.
type Cell = Vec<(String, Style)>;

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

pub struct Table {
    colours: bool,
}

impl Table {
    pub fn for_stdout() -> Table {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Table {
            colours: stdout().is_terminal() && !no_color,
        }
    }

    pub fn introduction(&self, envoy_version: &str) {
        let title = format!("AI Fallback in Envoy {envoy_version}");
        println!("\n{}", self.paint(&title, Style::Bold));
        println!(
            "
A client asks for a model. Envoy sends the request to the first service of its Model API. When that one fails, the
filter sends it to the next: the client sees a good answer, and two headers that say what happened.

  Model API     first       then
  chat          openai      qwen (with model qwen-plus), then local (with model llama-3)
  messages      anthropic   bedrock
  embeddings    openai      local

A stream must bring its first packet within {FIRST_PACKET_TIMEOUT_MS} ms, any request its answer within {REQUEST_TIMEOUT_MS} ms.
The services are mocks that fail on purpose; Envoy, the filter and the requests are real."
        );
    }

    /// Opens the table of rows.
    pub fn rows(&self, dispatch: Dispatch) {
        let name = dispatch.name();
        self.part(&format!(
            "Part 1: what a fallback is made for, with dispatch: {name}"
        ));
        println!(
            "
  tried, came to, ms   from the header x-ai-fallback-attempts
  client got           the status, and the service that answered; \"gateway\" where none did
  first, total         ms until the first byte of the body, and until its end
  ok                   the client, the headers and what the services received are all as they should be
"
        );
        self.titles(&COLUMNS);
    }

    /// Opens the table of streams.
    pub fn comparison(&self) {
        self.part("Part 2: a stream that comes by fallback, with dispatch: router and with dispatch: callout");
        println!(
            "
With dispatch: router every chunk is passed on as it comes. A callout brings its answer whole, so the client waits
for the end of it. The fallback, qwen, sends {CHUNKS} chunks, {GAP_MS} ms apart. At the client:

  first, last          ms from when qwen sent its first chunk until the client had the first, and the last
  median, max          ms between two chunks
  when                 from when qwen sent its first chunk, {PICTURE_STEP_MS} ms a character; # where chunks came
"
        );
        self.titles(&COMPARISON);
    }

    /// The same request, one stream a line.
    pub fn compared(&self, wrong: &str, streams: &[Streamed]) {
        let lines = |cell: &dyn Fn(&Streamed) -> String| plain(streams.iter().map(cell));
        let verdicts = streams.iter().map(|stream| verdict(&stream.problems));
        let none = Duration::ZERO;
        println!();
        self.cells(
            &COMPARISON,
            &[
                plain(wrap(wrong, COMPARISON[0].width)),
                lines(&|stream| stream.by.to_owned()),
                lines(&|stream| tenths(*stream.chunks.first().unwrap_or(&none))),
                lines(&|stream| tenths(*stream.chunks.last().unwrap_or(&none))),
                lines(&|stream| tenths(stream.spacing().0)),
                lines(&|stream| tenths(stream.spacing().1)),
                lines(&|stream| picture(&stream.chunks)),
                verdicts.collect(),
            ],
        );
        for stream in streams {
            for problem in &stream.problems {
                self.note(&format!("{}: {problem}", stream.by), Style::Bad);
            }
        }
    }

    fn part(&self, title: &str) {
        println!("\n\n{}", self.paint(title, Style::Bold));
    }

    pub fn heading(&self, title: &str) {
        println!("\n{}", self.paint(title, Style::Bold));
    }

    pub fn row(&self, number: usize, row: &Row, answer: &Answer, problems: &[String]) {
        let attempts = |cell: fn(&Attempt) -> (String, Style)| -> Cell {
            answer.attempts.iter().map(cell).collect()
        };
        let first = answer.first.map_or_else(|| "-".to_owned(), millis);
        let cells = [
            plain([number.to_string()]),
            plain(asked(row)),
            plain(wrap(row.wrong, COLUMNS[2].width)),
            attempts(|attempt| (attempt.service.clone(), Style::Plain)),
            attempts(|attempt| (attempt.outcome.clone(), outcome_style(&attempt.outcome))),
            attempts(|attempt| (attempt.took.trim_end_matches("ms").to_owned(), Style::Plain)),
            client_got(answer),
            plain([first]),
            plain([millis(answer.total)]),
            vec![verdict(problems)],
        ];
        self.cells(&COLUMNS, &cells);
        if let Some(models) = row.models {
            self.note(&format!("models sent: {models}"), Style::Dim);
        }
        if row.says.is_some() || !problems.is_empty() {
            self.note(&format!("body: {}", answer.body), Style::Dim);
        }
        for problem in problems {
            self.note(problem, Style::Bad);
        }
    }

    pub fn summary(&self, tally: &Tally, took: Duration) {
        println!(
            "\n{}, in {:.1} s. The first attempt failed in {} requests; {} of them got a good answer all the same.",
            self.as_expected(tally),
            took.as_secs_f64(),
            tally.failed,
            tally.saved,
        );
    }

    /// For the rows that are only shown where something is wrong.
    pub fn quiet_summary(&self, dispatch: Dispatch, tally: &Tally, took: Duration) {
        println!(
            "\nThe {} requests of part 1 again, with dispatch: {}: {}, in {:.1} s.",
            tally.rows,
            dispatch.name(),
            self.as_expected(tally),
            took.as_secs_f64(),
        );
    }

    fn as_expected(&self, tally: &Tally) -> String {
        let style = if tally.is_good() {
            Style::Good
        } else {
            Style::Bad
        };
        let good = format!("{} of {} as expected", tally.rows - tally.wrong, tally.rows);
        self.paint(&good, style)
    }

    /// Something worth a look, under its row.
    fn note(&self, text: &str, style: Style) {
        let indent = " ".repeat(COLUMNS[0].width + GAP.len());
        let text: Vec<char> = text.replace('\n', " ").chars().collect();
        for line in text.chunks(WIDTH - indent.len()) {
            println!(
                "{indent}{}",
                self.paint(&line.iter().collect::<String>(), style)
            );
        }
    }

    fn titles<const N: usize>(&self, columns: &[Column; N]) {
        let title = |column: &Column| vec![(column.title.to_owned(), Style::Bold)];
        self.cells(columns, &columns.each_ref().map(title));
    }

    fn cells<const N: usize>(&self, columns: &[Column; N], cells: &[Cell; N]) {
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..lines {
            let cells = cells.iter().zip(columns);
            let cells = cells.map(|(cell, column)| self.cell(cell.get(line), column));
            println!("{}", cells.collect::<Vec<_>>().join(GAP).trim_end());
        }
    }

    fn cell(&self, content: Option<&(String, Style)>, column: &Column) -> String {
        let Some((text, style)) = content else {
            return " ".repeat(column.width);
        };
        let width = column.width;
        let padded = match column.right {
            true => format!("{text:>width$}"),
            false => format!("{text:width$}"),
        };
        self.paint(&padded, *style)
    }

    fn paint(&self, text: &str, style: Style) -> String {
        let code = match style {
            _ if !self.colours => return text.to_owned(),
            Style::Plain => return text.to_owned(),
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Good => 32,
            Style::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn asked(row: &Row) -> Vec<String> {
    let stream = if row.stream { ", stream" } else { "" };
    wrap(
        &format!("{} {}{stream}", row.api.name(), row.model),
        COLUMNS[1].width,
    )
}

fn client_got(answer: &Answer) -> Cell {
    let status = answer
        .status
        .map_or_else(|| "-".to_owned(), |status| status.to_string());
    let style = if answer.status == Some(200) {
        Style::Good
    } else {
        Style::Bad
    };
    let mut cell = vec![(format!("{status} {}", answer.from), style)];
    if !answer.whole {
        cell.push(("broken off".to_owned(), Style::Bad));
    }
    cell
}

fn outcome_style(outcome: &str) -> Style {
    match outcome {
        "200" => Style::Good,
        _ => Style::Bad,
    }
}

fn verdict(problems: &[String]) -> (String, Style) {
    match problems {
        [] => ("ok".to_owned(), Style::Good),
        _ => ("WRONG".to_owned(), Style::Bad),
    }
}

/// `#` where a chunk came, `.` where none did, up to the last. What came later stands at the end.
fn picture(chunks: &[Duration]) -> String {
    let column = |at: &Duration| (at.as_millis() / u128::from(PICTURE_STEP_MS)) as usize;
    let columns = chunks.iter().map(|at| column(at).min(PICTURE - 1));
    let columns: Vec<usize> = columns.collect();
    let width = columns.last().map_or(0, |last| last + 1);
    (0..width)
        .map(|column| if columns.contains(&column) { '#' } else { '.' })
        .collect()
}

fn plain(lines: impl IntoIterator<Item = String>) -> Cell {
    lines.into_iter().map(|line| (line, Style::Plain)).collect()
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

fn tenths(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// Lines of at most `width` characters, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
