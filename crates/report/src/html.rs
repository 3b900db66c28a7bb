//! A document as one HTML file that asks no host for anything: its style and its pictures are in
//! it, and it has no script.

use ams_train::ablate::Cells;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::chart::COLORS;
use crate::document::{Block, Candidate, Chart, Document, Page, Section, Sheet, Shown};
use crate::markdown::{name, percent, points};

const STYLE: &str = include_str!("style.css");

/// Lines of a text beyond which it is shown when it is asked for.
const FOLDED: usize = 8;

/// Nothing is loaded, whatever a text in the page says.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The document as an HTML file.
pub fn html(document: &Document) -> String {
    let Document { title, lead, sections } = document;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(style())) }
            }
            body {
                header {
                    h1 { (title) }
                    @for paragraph in lead { p { (paragraph) } }
                    nav aria-label="Sections" {
                        @for Section { id, title, .. } in sections { a href={ "#" (id) } { (title) } }
                    }
                }
                main { @for section in sections { (section_html(section)) } }
            }
        }
    };
    page.into_string()
}

/// The style sheet, with a variable for each placeholder of a chart.
fn style() -> String {
    let mut style = STYLE.to_owned();
    let mut rule = |at: usize, variable: &str| {
        style += &format!(
            "svg [fill=\"#0000{at:02X}\"]{{fill:var(--{variable})}}\
             svg [stroke=\"#0000{at:02X}\"]{{stroke:var(--{variable})}}\n"
        );
    };
    rule(1, "ink");
    rule(2, "grid");
    rule(3, "line");
    (0..COLORS).for_each(|at| rule(10 + at, &format!("c{at}")));
    style
}

fn section_html(section: &Section) -> Markup {
    html! {
        section id=(section.id) aria-labelledby={ "title-" (section.id) } {
            h2 id={ "title-" (section.id) } { (section.title) }
            @for block in &section.blocks { (block_html(block, &section.title)) }
        }
    }
}

fn block_html(block: &Block, title: &str) -> Markup {
    html! {
        @match block {
            Block::Text(text) => p { (text) },
            Block::Note(text) => p.note { (text) },
            Block::Table(cells) => (table(cells, title)),
            Block::Folded { summary, cells } => details {
                summary { (summary) }
                (table(cells, summary))
            },
            Block::Charts(charts) => div.charts { @for chart in charts { (chart_html(chart)) } },
            Block::Code { caption, text } => {
                @let lines = text.trim_end();
                @if lines.lines().count() > FOLDED {
                    details { summary { (caption) } (code(lines, caption)) }
                } @else {
                    p { (caption) }
                    (code(lines, caption))
                }
            },
            Block::Pages(pages) => { @for page in pages { (page_html(page)) } },
            Block::Sheets(sheets) => { @for sheet in sheets { (sheet_html(sheet)) } },
        }
    }
}

/// A text to copy, which scrolls by itself.
fn code(text: &str, label: &str) -> Markup {
    html! { pre tabindex="0" role="region" aria-label=(label) { code { (text) } } }
}

/// A table that scrolls by itself where it is wider than the page.
fn table(cells: &Cells, label: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Table: " (label) } {
            table {
                thead { tr { @for cell in &cells.header { th scope="col" { (cell) } } } }
                tbody {
                    @for row in &cells.rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chart_html(chart: &Chart) -> Markup {
    let label = format!("{}; a table has its numbers", chart.title);
    let svg = chart.svg().map(|svg| {
        // The label is ours, and escaped like a text.
        let label = html! { (label) }.into_string().replace('"', "&quot;");
        svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1)
    });
    html! {
        figure {
            figcaption { (chart.title) }
            @match svg {
                Some(svg) => (PreEscaped(svg)),
                None => p.note { "There is no value to draw." },
            }
            @let legend = chart.legend();
            @if legend.len() > 1 {
                ul.legend {
                    @for (at, name) in legend.iter().enumerate() {
                        li { span.swatch style={ "background:var(--c" (at % COLORS) ")" } {} (name) }
                    }
                }
            }
            @if chart.has_cells() {
                details { summary { "Numbers" } (table(&chart.cells(), &chart.title)) }
            }
        }
    }
}

/// A small picture, or the place of one.
fn picture(shown: &Shown) -> Markup {
    html! {
        @match &shown.picture {
            Some(address) => img src=(address) alt={ "Picture of " (shown.item) };,
            None => span.blank { "no picture" },
        }
    }
}

fn item(shown: &Shown) -> Markup {
    html! {
        (picture(shown))
        span.item { (shown.item) }
        @if !shown.about.is_empty() { span.about { (shown.about) } }
    }
}

fn page_html(page: &Page) -> Markup {
    let columns = page.behaviors.len();
    html! {
        h3 { (page.title()) }
        div.scroll tabindex="0" role="region" aria-label={ "Table: " (page.title()) } {
            table.strip {
                thead {
                    tr {
                        th scope="col" { "candidate, best first" }
                        th scope="colgroup" colspan=(columns.max(1)) { "past behavior, newest first" }
                    }
                    tr {
                        td {}
                        @for behavior in &page.behaviors { th scope="col" { (item(behavior)) } }
                        @if columns == 0 { td { "none" } }
                    }
                }
                tbody { @for candidate in &page.candidates { (candidate_html(candidate)) } }
            }
        }
    }
}

fn candidate_html(candidate: &Candidate) -> Markup {
    let Candidate { shown, ctr, ctr_without_history, raises, attention } = candidate;
    let largest = raises.iter().fold(1e-6_f32, |most, raise| most.max(raise.abs()));
    html! {
        tr {
            th scope="row" {
                (item(shown))
                span.rate { (percent(*ctr)) }
                span.about { (percent(*ctr_without_history)) " without history" }
            }
            @for (at, raise) in raises.iter().enumerate() {
                // As strong as the behavior's part in the score.
                @let strength = (raise.abs() / largest * 34.0).round();
                @let tone = if *raise < 0.0 { "less" } else { "more" };
                td style={ "background:color-mix(in srgb,var(--" (tone) ") " (strength) "%,transparent)" } {
                    span.raise { (points(*raise)) }
                    @for weights in attention {
                        span.about { (weights.over) " " (format!("{:.3}", weights.weights[at])) }
                    }
                }
            }
            @if raises.is_empty() { td {} }
        }
    }
}

fn sheet_html(sheet: &Sheet) -> Markup {
    html! {
        h3 { "Near " (name(&sheet.shown)) }
        div.scroll tabindex="0" role="region" aria-label={ "Table: near " (sheet.shown.item) } {
            table.strip {
                tbody {
                    @for by in &sheet.by {
                        tr {
                            th scope="row" { (picture(&sheet.shown)) span.item { (by.vector) } }
                            @for near in &by.nearest {
                                td { (item(&near.shown)) span.rate { (format!("{:.3}", near.cosine)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
