package deploy

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

func statusTable(w io.Writer, results []fleet.Result, states map[string][]target.DaemonState) error {
	var rows [][]string
	for _, r := range results {
		if len(states[r.Node]) == 0 {
			rows = append(rows, []string{r.Node, "-", "-", string(r.State), "-", "-", r.Text()})
			continue
		}
		for _, d := range states[r.Node] {
			rows = append(rows, []string{r.Node, d.Name, orDash(d.Version), orDash(d.Unit), orDash(d.API), mounts(d), token(d, time.Now())})
		}
	}
	return fleet.Table(w, []string{"NODE", "DAEMON", "VERSION", "UNIT", "API", "MOUNTS", "TOKEN"}, rows)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
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

// token says until when the credentials are good.
func token(d target.DaemonState, now time.Time) string {
	switch {
	case d.Token != target.TokenEnds:
		return d.Token
	case d.Expires.Before(now):
		return "ended " + d.Expires.Format(time.DateTime) + " UTC"
	}
	left := d.Expires.Sub(now)
	if left > 48*time.Hour {
		return fmt.Sprintf("%d days left", int(left.Hours()/24))
	}
	return strings.TrimSuffix(left.Truncate(time.Minute).String(), "0s") + " left"
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
	Token   string     `json:"token"`
	Expires *time.Time `json:"token_expires,omitempty"`
}

func statusJSON(w io.Writer, results []fleet.Result, states map[string][]target.DaemonState) error {
	doc := statusDocument{Nodes: []statusNode{}}
	for _, r := range results {
		n := statusNode{
			Node: r.Node, Well: r.State == fleet.OK, Answers: len(states[r.Node]) > 0, Seconds: math.Round(r.Time.Seconds()*1000) / 1000,
			Cause: r.Cause, Hint: r.Hint, Notes: r.Notes, Daemons: []statusDaemon{},
		}
		for _, d := range states[r.Node] {
			one := statusDaemon{
				Name: d.Name, Well: d.Well, Version: d.Version, Package: d.Package, Unit: d.Unit, Enabled: d.Enabled, Says: d.Says,
				API: d.API, Token: d.Token,
			}
			if m := d.Mounts; m != nil && m.Unknown != "" {
				one.Unknown = m.Unknown
			} else if m != nil {
				one.Mounts, one.Bad = &m.Count, m.Unreadable
			}
			if d.Token == target.TokenEnds {
				one.Expires = &d.Expires
			}
			n.Daemons = append(n.Daemons, one)
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	return text.JSON(w, doc)
}
