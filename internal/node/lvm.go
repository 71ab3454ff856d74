package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// LV is a logical volume as lvs reports it.
type LV struct{ VG, Name, Attr string }

// Active reports whether the volume is active on this node: the fifth character of
// lv_attr (lvs(8)). A volume with a shorter lv_attr is not active.
func (l LV) Active() bool { return len(l.Attr) >= 5 && l.Attr[4] == 'a' }

// ErrTimeoutVG reports that a volume group did not appear in time.
var ErrTimeoutVG = errors.New("timeout waiting for VG")

// vgPoll is the interval of queries for a volume group: LVM has no event for a group that
// appears.
const vgPoll = 100 * time.Millisecond

// lvmCapture bounds the reports of one volume group.
const lvmCapture = 4 << 20

const maxVGName = 127

// checkVG returns an error for a name that LVM does not accept (lvm(8)). The name becomes
// part of a selection, where other characters would be operators.
func checkVG(vg string) error {
	if vg == "" || len(vg) > maxVGName || vg[0] == '-' || vg == "." || vg == ".." || !text.Only(vg, "_+.-") {
		return fmt.Errorf("%.200q is not a valid volume group name", vg)
	}
	return nil
}

// LVs returns the logical volumes of the volume group vg. An empty list is not an error.
func (n *Node) LVs(ctx context.Context, vg string, timeout time.Duration) (lvs []LV, err error) {
	err = n.askLVM(ctx, "lvs", lvColumns, vg, timeout, func(report string) (bool, error) {
		all, err := parseLVS(report)
		lvs = slices.DeleteFunc(all, func(l LV) bool { return l.VG != vg })
		return len(lvs) > 0, err
	})
	return lvs, err
}

// lvColumns are the columns that parseLVS parses.
const lvColumns = "vg_name,lv_name,lv_attr"

// AllLVs returns the logical volumes of all volume groups that this node sees. It reads all block
// devices, so it is for people, not for reconciles.
func (n *Node) AllLVs(ctx context.Context, timeout time.Duration) (lvs []LV, err error) {
	err = n.reportLVM(ctx, "lvs", lvColumns, nil, timeout, func(report string) (bool, error) {
		lvs, err = parseLVS(report)
		return len(lvs) > 0, err
	})
	return lvs, err
}

// HasVG reports whether this node sees the volume group vg.
func (n *Node) HasVG(ctx context.Context, vg string, timeout time.Duration) (has bool, err error) {
	err = n.askLVM(ctx, "vgs", "vg_name", vg, timeout, func(report string) (bool, error) {
		names, err := parseVGS(report)
		has = slices.Contains(names, vg)
		return has, err
	})
	return has, err
}

// WaitVG queries the volume group every 100 ms, at least once and at most for limit.
// timeout is the time limit of each vgs. The error is ErrTimeoutVG, with the last failure
// of vgs if any.
func (n *Node) WaitVG(ctx context.Context, vg string, limit, timeout time.Duration) error {
	if err := checkVG(vg); err != nil {
		return err
	}
	var last error
	err := poll(ctx, time.Now().Add(limit), vgPoll, func() (found bool, err error) {
		found, last = n.HasVG(ctx, vg, timeout)
		if errors.Is(last, exec.ErrNotFound) || errors.Is(last, ErrHangs) || survived(last) {
			return false, last // a retry cannot help
		}
		return found, nil
	})
	switch {
	case err == nil || ctx.Err() == nil && !errors.Is(err, ErrTooLate):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for VG %s: %w", vg, context.Cause(ctx))
	case last != nil:
		return fmt.Errorf("%w %s: %w", ErrTimeoutVG, vg, last)
	default:
		return fmt.Errorf("%w %s", ErrTimeoutVG, vg)
	}
}

// parseLVS parses the JSON report of lvs.
func parseLVS(out string) ([]LV, error) {
	var doc struct {
		Report []struct {
			LV []struct {
				VG   string `json:"vg_name"`
				Name string `json:"lv_name"`
				Attr string `json:"lv_attr"`
			} `json:"lv"`
		} `json:"report"`
	}
	if err := parseJSON("lvs", out, &doc); err != nil {
		return nil, err
	}
	var lvs []LV
	for _, r := range doc.Report {
		for _, l := range r.LV {
			lvs = append(lvs, LV{VG: l.VG, Name: l.Name, Attr: l.Attr})
		}
	}
	return lvs, nil
}

// parseVGS parses the JSON report of vgs and returns the names.
func parseVGS(out string) ([]string, error) {
	var doc struct {
		Report []struct {
			VG []struct {
				Name string `json:"vg_name"`
			} `json:"vg"`
		} `json:"report"`
	}
	if err := parseJSON("vgs", out, &doc); err != nil {
		return nil, err
	}
	var names []string
	for _, r := range doc.Report {
		for _, v := range r.VG {
			names = append(names, v.Name)
		}
	}
	return names, nil
}

// parseJSON decodes the output of tool. The error shows the start of the output.
func parseJSON(tool, out string, into any) error {
	err := json.Unmarshal([]byte(out), into)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s did not print the expected JSON (%w); it starts with %q", tool, err, text.Cut(out, 200))
}

const (
	// lvmReportFD is the variable with the descriptor to which the LVM tools write a
	// report. Their messages go to standard output, where they would be mixed with the
	// lines of the report.
	lvmReportFD = "LVM_REPORT_FD"
	// lvmConfig overrides lvm.conf, whose command_names and prefix would be printed before
	// every line, even of a report on a separate descriptor (lvm.conf(5), section log).
	lvmConfig = `log{command_names=0 prefix="  "}`
)

// askLVM runs an LVM tool for the columns of volume group vg. parse parses the report and
// returns whether it contains the group.
func (n *Node) askLVM(ctx context.Context, tool, columns, vg string, timeout time.Duration, parse func(report string) (holds bool, err error)) error {
	if err := checkVG(vg); err != nil {
		return err
	}
	return n.reportLVM(ctx, tool, columns, []string{"--select", "vg_name=" + vg}, timeout, parse)
}

// reportLVM runs an LVM tool for the columns, with additional arguments. parse parses the report
// and returns whether it contains what was asked for. A report with that is used whatever the exit
// status is, because the tools also report problems of other groups.
func (n *Node) reportLVM(ctx context.Context, tool, columns string, more []string, timeout time.Duration, parse func(report string) (holds bool, err error)) error {
	c := Command{
		Argv:    append([]string{tool, "--nolock", "--config", lvmConfig, "--reportformat", "json", "-o", columns}, more...),
		Timeout: timeout, Capture: lvmCapture, Report: lvmReportFD,
	}
	res, err := n.Run(ctx, c)
	if failed, ok := errors.AsType[*CommandError](err); err != nil && (!ok || failed.TimedOut || exitStatus(err) < 0) {
		return err
	}
	report, messages := res.Report, res.Stdout+res.Stderr
	own := strings.TrimSpace(report) != ""
	if !own { // a tool that does not support LVM_REPORT_FD
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
		return fmt.Errorf("%w; it also printed %q", perr, oneLine(messages))
	case perr != nil:
		return perr
	}
	if messages = oneLine(messages); messages != "" && n.shared().messages.fresh(tool, messages) {
		n.log().Warn("an LVM tool printed messages in addition to its report; using the report", "command", c.String(), "output", messages, "error", errText(err))
	}
	return nil
}

// withoutMessages splits out into a report and the lines that cannot belong to it. Every
// line of a report contains a bracket, a brace or a quote. A message that contains one of
// these stays in the report and makes it invalid, so it is never used as data.
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

// messageLimit bounds the messages of a tool in a log record, in bytes.
const messageLimit = 2 << 10

// oneLine joins the lines of a tool's messages and replaces unprintable characters.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return text.Clip(printable(strings.Join(lines, "; ")), messageLimit)
}

// errText returns the cause of a failed command, without its output.
func errText(err error) string {
	if c, ok := errors.AsType[*CommandError](err); ok {
		return c.Err.Error()
	}
	return ""
}

// messages records logged messages, so that a message that a tool prints every time is
// logged once. It ignores digits, because sizes and times change.
type messages struct {
	mu   sync.Mutex
	seen map[string]bool
}

// messagesMost bounds the number of recorded messages.
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

// Locks is a set of locks by key. Waiting for a lock can be cancelled. A lock exists only
// while a caller holds it or waits for it. The zero value is ready for use.
type Locks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	turn  chan struct{} // holds one token while the lock is held
	users int
}

// Lock waits until no other caller holds key. unlock may be called more than once. The
// error is the cause of ctx.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.locks[key]
	if k == nil {
		k = &keyLock{turn: make(chan struct{}, 1)}
		if l.locks == nil {
			l.locks = map[string]*keyLock{}
		}
		l.locks[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.locks, key)
		}
	}
	select {
	case k.turn <- struct{}{}:
		return sync.OnceFunc(func() { <-k.turn; leave() }), nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// LockVG locks the volume group vg, because concurrent LVM commands on one group disturb
// each other. unlock may be called more than once. The error wraps the cause of ctx.
func (n *Node) LockVG(ctx context.Context, vg string) (unlock func(), err error) {
	if unlock, err = n.shared().locks.Lock(ctx, vg); err != nil {
		return nil, fmt.Errorf("waiting for other commands on VG %s: %w", vg, err)
	}
	return unlock, nil
}
