package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

const (
	// lvmReportFD names the descriptor to which the LVM tools write a report. Their
	// messages go to standard output, and come between the lines of a report that is
	// written there too.
	lvmReportFD = "LVM_REPORT_FD"
	// lvmConfig overrides lvm.conf: command_names and prefix are put in front of every
	// line, those of a report on its own descriptor too (lvm.conf(5), section log).
	lvmConfig = `log{command_names=0 prefix="  "}`
)

// askLVM runs the LVM tool for the columns of volume group vg. parse reads the report
// and tells whether it holds the group. A report that does counts whatever the exit
// status is: the tools report the trouble of any group that they meet.
func (n *Node) askLVM(ctx context.Context, tool, columns, vg string, timeout time.Duration, parse func(report string) (holds bool, err error)) error {
	if err := checkVG(vg); err != nil {
		return err
	}
	c := Command{
		Argv:    []string{tool, "--nolock", "--config", lvmConfig, "--reportformat", "json", "-o", columns, "--select", "vg_name=" + vg},
		Timeout: timeout, Capture: lvmCapture, Report: lvmReportFD,
	}
	res, err := n.Run(ctx, c)
	if failed, ok := errors.AsType[*CommandError](err); err != nil && (!ok || failed.TimedOut || exitStatus(err) < 0) {
		return err
	}
	report, messages := res.Report, res.Stdout+res.Stderr
	own := strings.TrimSpace(report) != ""
	if !own { // a tool that does not know LVM_REPORT_FD
		report, messages = res.Stdout, res.Stderr
	}
	holds, perr := parse(report)
	if perr != nil && !own {
		var dropped string
		if report, dropped = withoutMessages(report); dropped != "" {
			var err error
			if holds, err = parse(report); err == nil {
				perr, messages = nil, dropped+messages
			}
		}
	}
	switch {
	case err != nil && perr != nil && own:
		return fmt.Errorf("%w; and %w", err, perr)
	case err != nil && (perr != nil || !holds):
		return err
	case perr != nil && strings.TrimSpace(messages) != "":
		return fmt.Errorf("%w; its messages are %q", perr, oneLine(messages))
	case perr != nil:
		return perr
	}
	if messages = oneLine(messages); messages != "" && n.shared().messages.fresh(tool, messages) {
		n.log().Warn("an LVM tool printed messages beside its report; the report is used", "command", c.String(), "output", messages, "error", errText(err))
	}
	return nil
}

// withoutMessages returns what is left of out without the lines that cannot belong to
// a report, and those lines. Every line of a report has a bracket, a brace or a quote.
// A message with one of these stays and makes the report invalid: it must not be taken
// for a part of it.
func withoutMessages(out string) (report, messages string) {
	var r, m strings.Builder
	for line := range strings.Lines(out) {
		if strings.ContainsAny(line, `{}[]"`) {
			r.WriteString(line)
		} else {
			m.WriteString(line)
		}
	}
	return r.String(), m.String()
}

// messageLimit bounds what is shown of messages, in bytes.
const messageLimit = 2 << 10

// oneLine makes the lines of a tool's messages one, safe to show.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return text.Clip(printable(strings.Join(lines, "; ")), messageLimit)
}

// errText is the cause of a failed command, without its output.
func errText(err error) string {
	if c, ok := errors.AsType[*CommandError](err); ok {
		return c.Err.Error()
	}
	return ""
}

// messages remembers what was logged, so that a message that comes with every answer
// is logged once. Numbers do not count: sizes and times change.
type messages struct {
	mu   sync.Mutex
	seen map[string]bool
}

// messagesMost bounds how many texts are remembered.
const messagesMost = 64

func (m *messages) fresh(tool, text string) bool {
	key := tool + " " + strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, text)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen[key] {
		return false
	}
	if m.seen == nil || len(m.seen) >= messagesMost {
		m.seen = map[string]bool{}
	}
	m.seen[key] = true
	return true
}
