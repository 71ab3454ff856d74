package transfer

import "regexp"

// What dcp writes while it copies: "Copied 1.000 GiB (50%) in 3.139 secs
// (326.217 MiB/s) 3 secs left ..."
var (
	dcpData = regexp.MustCompile(`^Copied ([0-9.]+ [KMGTPE]?i?B) `)
	dcpRate = regexp.MustCompile(`\(([0-9.]+ [KMGTPE]?i?B/s)\)`)
	dcpLeft = regexp.MustCompile(`\) ([0-9]+ [a-z]+) left`)
)

// fromLastMessage fills in what only the command's own line tells while it runs.
// A site's command that writes other lines leaves it empty.
func (m *Movement) fromLastMessage() {
	fill := func(to *string, from *regexp.Regexp) {
		if found := from.FindStringSubmatch(m.LastMessage); *to == "" && found != nil {
			*to = found[1]
		}
	}
	fill(&m.Data, dcpData)
	fill(&m.Rate, dcpRate)
	fill(&m.Left, dcpLeft)
}
