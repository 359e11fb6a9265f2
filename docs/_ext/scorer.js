// How the search of the site orders what it finds; the numbers are Sphinx' own but for `score`.
// What site_pages/keywords.py names comes first, under its heading (HEADINGS is added to this file), then settings; commands' options and pages about the
// project itself come last.
const ABOUT_THE_PROJECT = /^(changelog|contributing|architecture|design-decisions|benchmarks)$/;

var Scorer = {
  score: (result) => {
    const [docname, title, anchor, descr, score, filename, kind] = result;
    if (kind === "index" && anchor.startsWith("#index-")) {
      const [heading, id] = HEADINGS[docname][Number(anchor.replace("#index-", ""))];
      if (heading) result[1] = `${title} > ${heading}`;
      result[2] = id ? `#${id}` : "";
    }
    if (kind === "index") return score;
    if (kind === "object" && docname === "settings") return score + 10;
    if (kind === "object" && docname === "reference/commands") return score - 15;
    return ABOUT_THE_PROJECT.test(docname) ? score - 4 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
