package deploy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

type statusSettings struct{ reportSettings }

var statusCommand = &command{
	Name: "status", Args: "[NODE...]", Short: "show versions, units, mounts and credentials of the nodes",
	Long: `Without NODE, the command shows all compute nodes of the system. NODE may be a host
list such as compute-[01-20,30]. The exit code is 0 if every node answers, every
daemon runs, clientmountd reaches the API server, and no token is missing or has
expired. The command is therefore suitable for monitoring.

VERSION is the version of the program. UNIT is the state of the service, or of the
socket for nnf-dm, which runs only when it is needed. API shows whether clientmountd
reaches the API server. MOUNTS is the number of ClientMounts with mounts in place
(unknown: this version of clientmountd is too old to report it). IDENTITY is shared if
all nodes have the same account, and per-node if the account belongs to this node.
TOKEN is how long the credentials are valid. The token itself never leaves the node.
A note lists the nodes whose token expires within a day, or has expired, and those
that have an account of their own for nnf-dm, but not its timer.`,
	Examples: []cli.Example{
		{Comment: "List the nodes with a problem:", Lines: `nnf-deploy status -o json | jq -r '.nodes[] | select(.well | not) | .node'`},
	},
	Most: -1, Flags: statusFlags, Run: runStatus,
}

func statusFlags(f *pflag.FlagSet, v *call) {
	v.status.limitFlag(f, time.Minute)
	v.status.nodes.flags(f, "status")
}

func runStatus(ctx context.Context, v *call) error {
	c := &v.status
	results, states, err := collect(ctx, v, &c.reportSettings, func(stop context.Context, w *target.Want) ([]target.DaemonState, fleet.Result) {
		report, err := target.Probe(stop, c.nodes.shell(), w)
		if err != nil {
			return nil, failed(err)
		}
		list := report.Daemons(w, time.Now())
		r := fleet.Result{State: fleet.OK}
		if report.Interrupted {
			r.Notes = append(r.Notes, "an installation was interrupted: run nnf-deploy install again")
		}
		if report.Busy {
			r.Notes = append(r.Notes, "an installation is in progress")
		}
		for _, d := range list {
			if !d.Healthy {
				r.State = fleet.Differs
			}
			if n := expiryNote(d, time.Now()); n != "" {
				r.Notes = append(r.Notes, n)
			}
			if n := timerNote(d); n != "" {
				r.Notes = append(r.Notes, n)
			}
			if d.Mounts != nil && d.Mounts.Unknown != "" {
				r.Notes = append(r.Notes, "the number of mounts is not known: "+d.Mounts.Unknown)
			}
		}
		return list, r
	})
	if results == nil {
		return err
	}
	return v.showStatus(results, states, err)
}

// showStatus prints the states and sets the exit code.
func (v *call) showStatus(results []fleet.Result, states map[string][]target.DaemonState, stopped error) error {
	var err error
	if v.output == formatJSON {
		err = statusJSON(v.Stdout, results, states)
	} else {
		err = statusTable(v.Stdout, results, states)
	}
	v.concluded(results)
	if stopped != nil {
		return stopped
	}
	return err
}

func statusTable(w io.Writer, results []fleet.Result, states map[string][]target.DaemonState) error {
	head := []string{"NODE", "DAEMON", "VERSION", "UNIT", "API", "MOUNTS", "IDENTITY", "TOKEN"}
	many := len(results) > manyNodes
	var rows [][]string
	for _, r := range results {
		if len(states[r.Node]) == 0 {
			what := details(r)
			if many {
				what = cmp.Or(r.Class, what)
			}
			rows = append(rows, []string{r.Node, "-", "-", string(r.State), "-", "-", "-", what})
			continue
		}
		for _, d := range states[r.Node] {
			rows = append(rows, []string{r.Node, d.Name, cmp.Or(d.Version, "-"), cmp.Or(d.Unit, "-"), cmp.Or(d.API, "-"), mounts(d), cmp.Or(d.Kind, "-"), token(d, time.Now(), many)})
		}
	}
	if !many {
		return table.Write(w, head, rows)
	}
	var common [][]string
	for _, same := range grouped(rows, func(row []string) string { return strings.Join(row[1:], "\x00") }) {
		var names []string
		for _, row := range same {
			names = append(names, row[0])
		}
		common = append(common, slices.Concat([]string{strconv.Itoa(len(same))}, same[0][1:], []string{hostList(names)}))
	}
	return writeRows(w, head[1:], common)
}

func mounts(d target.DaemonState) string {
	switch m := d.Mounts; {
	case m == nil:
		return "-"
	case m.Unknown != "":
		return "unknown"
	case m.Unreadable > 0:
		return fmt.Sprintf("%d, %d unreadable", m.Count, m.Unreadable)
	default:
		return strconv.Itoa(m.Count)
	}
}

// tokenTexts has the texts in the table for states of a token, where they differ from the
// values in the JSON output.
var tokenTexts = map[string]string{
	target.TokenPermanent: "does not expire",
	target.TokenUnknown:   "not a service account token",
	target.TokenInvalid:   "invalid expiry",
}

// token describes how long the credentials are valid, in full hours if the nodes are many: nodes
// with the same text have one row.
func token(d target.DaemonState, now time.Time, many bool) string {
	switch {
	case d.Token != target.TokenExpires:
		return cmp.Or(tokenTexts[d.Token], d.Token)
	case d.Expires.Before(now) && many:
		return "expired"
	case d.Expires.Before(now):
		return "expired " + d.Expires.Format(time.DateTime) + " UTC"
	}
	left := d.Expires.Sub(now)
	switch {
	case left > 48*time.Hour:
		return fmt.Sprintf("expires in %d days", int(left.Hours()/24))
	case many && left < time.Hour:
		return "expires in less than 1h"
	case many:
		return fmt.Sprintf("expires in %dh", int(left.Hours()))
	case left < time.Minute:
		return "expires in less than 1m"
	}
	return "expires in " + strings.TrimSuffix(left.Truncate(time.Minute).String(), "0s")
}

// expiryNote returns a note about a token that has expired or that needs attention, or "". A daemon
// renews the token of an account of one node at 75 to 85 % of its lifetime, so that with less
// than 15 % left, the renewal has failed.
func expiryNote(d target.DaemonState, now time.Time) string {
	const soon = 24 * time.Hour
	limit, command := soon, "nnf-deploy credentials --bound, then nnf-deploy install --no-programs --credentials DIR"
	if d.Kind == target.KindPerNode {
		command = "nnf-deploy install --no-programs --identity per-node"
	}
	if life := d.Expires.Sub(d.Issued); !d.Issued.IsZero() {
		limit = min(soon, life*15/100)
	}
	switch left := d.Expires.Sub(now); {
	case d.Token != target.TokenExpires:
		return ""
	case left <= 0:
		return "the token of " + d.Name + " has expired: run " + command
	case left < limit:
		return "the token of " + d.Name + " expires within a day: run " + command
	}
	return ""
}

// timerNote returns a note about a daemon that may not run in time to renew its token, or "".
func timerNote(d target.DaemonState) string {
	if d.Kind != target.KindPerNode || d.Timer != target.TimerOff && d.Timer != target.TimerAbsent {
		return ""
	}
	note := "the timer that starts " + d.Name + " to renew its token, even if no job needs it, is " + d.Timer
	if d.Timer == target.TimerAbsent && d.Package != "" {
		return note + " in the package on the node: install the current package with --rpm and --identity per-node"
	}
	return note + ": run nnf-deploy install --no-programs --identity per-node"
}

type statusDocument struct {
	Nodes []statusNode `json:"nodes"`
}

type statusNode struct {
	Node    string         `json:"node"`
	Well    bool           `json:"well"`
	Answers bool           `json:"answers"`
	Seconds float64        `json:"seconds"`
	Cause   string         `json:"cause,omitempty"`
	Hint    string         `json:"hint,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
	Daemons []statusDaemon `json:"daemons"`
}

type statusDaemon struct {
	Name    string     `json:"name"`
	Well    bool       `json:"well"`
	Version string     `json:"version"`
	Package string     `json:"package,omitempty"`
	Unit    string     `json:"unit"`
	Enabled string     `json:"enabled"`
	Says    string     `json:"says,omitempty"`
	API     string     `json:"api,omitempty"`
	Mounts  *int       `json:"mounts,omitempty"`
	Bad     int        `json:"mounts_unreadable,omitempty"`
	Unknown string     `json:"mounts_unknown,omitempty"`
	Kind    string     `json:"identity,omitempty"`
	Account string     `json:"account,omitempty"`
	Token   string     `json:"token"`
	Expires *time.Time `json:"token_expires,omitempty"`
	Timer   string     `json:"timer,omitempty"`
}

func statusJSON(w io.Writer, results []fleet.Result, states map[string][]target.DaemonState) error {
	doc := statusDocument{Nodes: []statusNode{}}
	for _, r := range results {
		n := statusNode{
			Node: r.Node, Well: r.State == fleet.OK, Answers: len(states[r.Node]) > 0, Seconds: seconds(r),
			Cause: r.Cause, Hint: r.Hint, Notes: r.Notes, Daemons: []statusDaemon{},
		}
		for _, d := range states[r.Node] {
			one := statusDaemon{
				Name: d.Name, Well: d.Healthy, Version: d.Version, Package: d.Package, Unit: d.Unit, Enabled: d.Enabled, Says: d.Status,
				API: d.API, Kind: d.Kind, Account: text.Clip(text.Line(d.Account), 512), Token: d.Token, Timer: d.Timer,
			}
			if m := d.Mounts; m != nil && m.Unknown != "" {
				one.Unknown = m.Unknown
			} else if m != nil {
				one.Mounts, one.Bad = &m.Count, m.Unreadable
			}
			if d.Token == target.TokenExpires {
				one.Expires = &d.Expires
			}
			n.Daemons = append(n.Daemons, one)
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	return text.JSON(w, doc)
}
