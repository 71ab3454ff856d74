package target

import (
	_ "embed" // the scripts
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// The scripts as they are run on nodes.
var (
	//go:embed scripts/prelude.sh
	prelude string
	//go:embed scripts/shared.sh
	shared string
	//go:embed scripts/probe.sh
	probeText string
	//go:embed scripts/apply.sh
	applyText string
	//go:embed scripts/collect.sh
	collectText string
	//go:embed scripts/switch.sh
	switchText string

	probeScript   = remote.Script{Name: "probe", Text: bare(prelude + shared + probeText)}
	applyScript   = remote.Script{Name: "apply", Text: bare(prelude + shared + applyText)}
	collectScript = remote.Script{Name: "collect", Text: bare(prelude + shared + collectText)}
)

// bare is a script without its lines of comment.
func bare(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if t := strings.TrimSpace(line); t != "" && !strings.HasPrefix(t, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}
