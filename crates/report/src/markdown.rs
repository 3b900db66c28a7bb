//! A document in Markdown: every number of the page, without its pictures.

use ams_train::ablate::{Cells, pipes};

use crate::document::{Block, Candidate, Document, Page, Sheet, Shown};

/// The document in Markdown.
pub fn markdown(document: &Document) -> String {
    let mut text = format!("# {}\n", escaped(&document.title));
    for paragraph in &document.lead {
        text += &format!("\n{}\n", escaped(paragraph));
    }
    for section in &document.sections {
        text += &format!("\n## {}\n", escaped(&section.title));
        for block in &section.blocks {
            text += &format!("\n{}\n", block_text(block).trim_end());
        }
    }
    text
}

fn block_text(block: &Block) -> String {
    match block {
        Block::Text(text) => escaped(text),
        Block::Note(text) => format!("> {}", escaped(text)),
        Block::Table(cells) => table(cells),
        Block::Folded { cells, .. } => table(cells),
        Block::Charts(charts) => {
            let charts = charts.iter().filter(|chart| chart.has_cells());
            let charts = charts
                .map(|chart| format!("**{}**\n\n{}", escaped(&chart.title), table(&chart.cells())));
            charts.collect::<Vec<String>>().join("\n")
        }
        Block::Code { caption, text } => {
            // Longer than any fence in the text.
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(3.max(longest + 1));
            format!("{}\n\n{fence}text\n{}\n{fence}", escaped(caption), text.trim_end())
        }
        Block::Pages(pages) => pages.iter().map(page).collect::<Vec<String>>().join("\n"),
        Block::Sheets(sheets) => sheets.iter().map(sheet).collect::<Vec<String>>().join("\n"),
    }
}

/// A page view as a table: a row for each behavior, columns for each candidate.
fn page(page: &Page) -> String {
    let Page { behaviors, candidates, .. } = page;
    let mut header = vec!["past behavior, newest first".to_owned()];
    let mut rows = vec![vec!["click-through rate".to_owned()], vec!["without history".to_owned()]];
    rows.extend(behaviors.iter().map(|shown| vec![name(shown)]));
    for Candidate { shown, ctr, ctr_without_history, raises, attention } in candidates {
        header.push(format!("{}: raises", name(shown)));
        rows[0].push(percent(*ctr));
        rows[1].push(percent(*ctr_without_history));
        rows[2..].iter_mut().zip(raises).for_each(|(row, raise)| row.push(points(*raise)));
        for weights in attention {
            header.push(format!("weights over {}", weights.over));
            rows[..2].iter_mut().for_each(|row| row.push(String::new()));
            let each = rows[2..].iter_mut().zip(&weights.weights);
            each.for_each(|(row, weight)| row.push(format!("{weight:.3}")));
        }
    }
    format!("**{}**\n\n{}", escaped(&page.title()), table(&Cells { header, rows }))
}

fn sheet(sheet: &Sheet) -> String {
    let count = sheet.by.iter().map(|by| by.nearest.len()).max().unwrap_or(0);
    let header = std::iter::once(String::new()).chain(sheet.by.iter().map(|by| by.vector.clone()));
    let row = |at: usize| {
        let cells = sheet.by.iter().map(|by| {
            let near = by.nearest.get(at);
            near.map_or(String::new(), |it| format!("{} {:.3}", name(&it.shown), it.cosine))
        });
        std::iter::once((at + 1).to_string()).chain(cells).collect()
    };
    let cells = Cells { header: header.collect(), rows: (0..count).map(row).collect() };
    format!("**Near {}**\n\n{}", escaped(&name(&sheet.shown)), table(&cells))
}

impl Page {
    /// Who looks at what.
    pub(crate) fn title(&self) -> String {
        let user = self.user.as_deref().unwrap_or("an unknown user");
        let Page { candidates_in_all, behaviors_in_all, .. } = self;
        format!("{user}: {candidates_in_all} candidates, {behaviors_in_all} past behaviors")
    }
}

/// An item in words.
pub(crate) fn name(shown: &Shown) -> String {
    match &shown.about[..] {
        "" => shown.item.clone(),
        about => format!("{} ({about})", shown.item),
    }
}

/// A probability in percent.
pub(crate) fn percent(share: f32) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A difference of probabilities in points of percent.
pub(crate) fn points(difference: f32) -> String {
    // Adding 0 makes -0 the 0 that it equals.
    format!("{:+.2}", (difference * 10_000.0).round() / 100.0 + 0.0)
}

fn table(cells: &Cells) -> String {
    let escape = |texts: &Vec<String>| texts.iter().map(|text| escaped(text)).collect();
    pipes(&Cells { header: escape(&cells.header), rows: cells.rows.iter().map(escape).collect() })
}

/// `text` on one line, in which no sign of Markdown has an effect.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let after = characters.peek().copied();
        let inside = |neighbor: Option<char>| neighbor.is_some_and(char::is_alphanumeric);
        let special = match character {
            '\\' | '`' | '*' | '<' | '>' | '|' | '&' | '~' => true,
            // Within a word it is a letter, and brackets without an address are brackets.
            '_' => !(inside(before) && inside(after)),
            ']' => matches!(after, Some('(' | '[' | ':')),
            '#' => before.is_none(),
            _ => false,
        };
        if special {
            line.push('\\');
        }
        line.push(if character.is_control() { ' ' } else { character });
        before = Some(character);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_users_are_no_markdown() {
        for (text, expected) in [
            ("a_b 0.7 [0.6, 0.8]", "a_b 0.7 [0.6, 0.8]"),
            ("_a_ *b* `c` <i> a|b\n# &amp;", "\\_a\\_ \\*b\\* \\`c\\` \\<i\\> a\\|b # \\&amp;"),
            ("[a](b)", "[a\\](b)"),
            ("# a", "\\# a"),
        ] {
            assert_eq!(escaped(text), expected);
        }
        let code = Block::Code { caption: "c".to_owned(), text: "a\n```\nb".to_owned() };
        assert_eq!(block_text(&code), "c\n\n````text\na\n```\nb\n````");
    }
}
