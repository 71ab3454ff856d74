package clientmount

import (
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

func newTimer(d time.Duration, f func()) *time.Timer { return time.AfterFunc(d, f) }

// APIState takes notice whether the API server answers, and logs each change
// once.
func (c *Controller) APIState(s kube.State) {
	c.do(func() {
		was := c.api
		if !s.Connected && !was.Connected && was.LastError != nil {
			s.Since = was.Since // it is the same outage
		}
		c.api = s
		switch {
		case s.Connected && !was.Connected && was.LastError != nil:
			c.resume()
			c.o.Log.Info("API server answers again", "down", time.Since(was.Since).Round(time.Millisecond), daemon.EventID(eventAPI))
		case !s.Connected && s.LastError != nil && (was.Connected || was.LastError == nil || !kube.SameTrouble(was.LastError, s.LastError)):
			c.o.Log.Warn("cannot follow the API server; mounts stay as they are, trying again", "error", s.LastError, daemon.EventID(eventAPI))
		}
	})
}

// say hands on the status line when it has changed.
func (c *Controller) say() {
	line := c.summary()
	if line == c.line || c.o.Status == nil {
		return
	}
	c.line = line
	c.o.Status(line)
}

// apiTexts are the states of the API server in the status line.
var apiTexts = map[string]string{
	systemd.APIAnswers: "; API server answers", systemd.APISilent: "; API server has not answered", systemd.APIConnecting: "; connecting to the API server",
}

// APIOf returns the state of the API server from the status line of a running
// daemon, one of the service package's words; "" if the line has none.
func APIOf(line string) string {
	found, first := "", len(line)
	for state, text := range apiTexts {
		if at := strings.Index(line, text); at >= 0 && at < first { // an error behind it may have any text
			found, first = state, at
		}
	}
	return found
}

// summary is what systemctl status shows.
func (c *Controller) summary() string {
	var mounts, objects, failing, busy, orphans int
	for _, o := range c.objects {
		if o.orphan != nil {
			orphans++
			continue
		}
		if o.newest == nil {
			continue
		}
		objects++
		switch {
		case o.running:
			busy++
		case o.last.failed:
			failing++
		case o.newest.Spec.DesiredState == dws.Mounted && !o.last.finished:
			mounts += len(o.newest.Spec.Mounts)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s ready for %s", count(mounts, "mount"), count(objects, "ClientMount"))
	for _, part := range []struct {
		n    int
		text string
	}{{busy, "in work"}, {failing, "failing"}, {orphans, "orphaned"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %d %s", part.n, part.text)
		}
	}
	switch {
	case c.api.Connected:
		b.WriteString(apiTexts[systemd.APIAnswers])
	case c.api.LastError != nil:
		fmt.Fprintf(&b, "%s since %s: %v", apiTexts[systemd.APISilent], c.api.Since.Format(time.RFC3339), c.api.LastError)
	default:
		b.WriteString(apiTexts[systemd.APIConnecting])
	}
	return shorten(b.String(), 512)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
