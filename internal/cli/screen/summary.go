package screen

import (
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Progress says in one line how far a copy is, without its id.
func Progress(m client.Movement) string {
	parts := []string{string(m.State)}
	if m.Ended() && m.Result != "" {
		parts[0] = string(m.Result)
	}
	if m.Percent != nil && !m.Ended() {
		parts[0] += fmt.Sprintf(" %d%%", *m.Percent)
	}
	if d := m.Elapsed(); d > 0 {
		parts = append(parts, d.String())
	}
	for _, s := range []string{m.Data, m.Rate} {
		if s != "" {
			parts = append(parts, figure(s))
		}
	}
	if left := Left(m); left != "" {
		parts = append(parts, left+" left")
	}
	if m.Restarts > 0 {
		parts = append(parts, fmt.Sprintf("restarted %d×", m.Restarts))
	}
	return strings.Join(parts, ", ")
}

// figure is a figure without what dcp writes behind it in its final report:
// "1.500 GiB (1610612736 bytes)".
func figure(s string) string {
	s, _, _ = strings.Cut(s, " (")
	return text.Line(s)
}

// Summary is the line that says how a copy stands: id, progress, and for what
// went wrong the message.
func Summary(m client.Movement) string {
	line := text.Line(m.ID) + ": " + Progress(m)
	if m.Message != "" && m.Result != client.Success {
		line += ": " + text.Line(m.Message)
	}
	return line
}
