package client

import (
	"regexp"
	"strconv"
)

// copied is what dcp writes while it copies:
//
//	Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...
//
// Builds of it differ: some put a time stamp in front, leave out the percentage or
// the time left, or count in powers of ten. The parts have their order, so that
// nothing before the words is taken for one of them. The figures have a limit,
// and no group can match a control character: the line is another program's.
var copied = regexp.MustCompile(`\bCopied ([0-9.]{1,20} [kKMGTPE]?i?B)\b` +
	`(?: \(([0-9]{1,3})%\))?` +
	`(?: in [0-9.]{1,20} [a-z]{1,10})?` +
	`(?: \(([0-9.]{1,20} [kKMGTPE]?i?B/s)\))?` +
	`(?: ([0-9.]{1,20} [a-z]{1,10}) left\b)?`)

// fromLastMessage fills in what only the command's own line tells while it runs:
// amount, rate, time left, and the percentage if the daemon has none. What the
// daemon reports itself counts more, so that all outputs show the same. A site's
// command that writes other lines leaves it empty.
func (m *Movement) fromLastMessage() {
	all := copied.FindAllStringSubmatch(m.LastMessage, -1)
	if len(all) == 0 {
		return
	}
	found := all[len(all)-1] // the newest, should there be several
	fill := func(to *string, text string) {
		if *to == "" {
			*to = text
		}
	}
	fill(&m.Data, found[1])
	fill(&m.Rate, found[3])
	fill(&m.Left, found[4])
	if n, err := strconv.ParseInt(found[2], 10, 32); err == nil && n <= 100 && m.Percent == nil {
		percent := int32(n)
		m.Percent = &percent
	}
}
