package apiserver

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Log messages after the loss of the server and after its return.
const (
	lostText = "the watch failed; mounts are not affected"
	backText = "API server answers again"
)

func message(l lab.LogLine) string { m, _ := l.Fields["msg"].(string); return m }

// awaitLog waits for a log line with all texts. Lines that are already logged match, too.
func (s *env) awaitLog(limit time.Duration, texts ...string) lab.LogLine {
	s.t.Helper()
	l, err := s.daemon.WaitLog(s.Context(limit), func(l lab.LogLine) bool { return l.Has(texts...) })
	if err != nil {
		s.t.Fatalf("no log line with %q: %v", texts, err)
	}
	return l
}

// lines returns the log lines about the loss and the return of the server.
func (s *env) lines() (list []lab.LogLine) {
	for _, l := range s.daemon.Log() {
		if m := message(l); strings.HasPrefix(m, lostText) || strings.HasPrefix(m, backText) {
			list = append(list, l)
		}
	}
	return list
}

// lost waits until the daemon has logged n times in total that the server is not available.
func (s *env) lost(n int) {
	s.t.Helper()
	wait.Within(s.t, soon, "the daemon detects the loss of the server", func() bool { return s.count(lostText) >= n })
}

// back waits until it has logged n times in total that the server is back.
func (s *env) back(n int) {
	s.t.Helper()
	wait.Within(s.t, resume, "the daemon detects the return of the server", func() bool { return s.count(backText) >= n })
	wait.Within(s.t, soon, "the status line is updated", s.answers)
}

// answers reports whether the status line shows no problem.
func (s *env) answers() bool { return strings.HasSuffix(s.status(), "; API server answers") }

func (s *env) count(text string) (n int) {
	for _, l := range s.lines() {
		if strings.HasPrefix(message(l), text) {
			n++
		}
	}
	return n
}

// logged fails the test unless the lines about the server are exactly these: each argument
// is a text in one line, or "back" for the return of the server.
func (s *env) logged(want ...string) {
	s.t.Helper()
	got := s.lines()
	fits := len(got) == len(want)
	for i := 0; fits && i < len(want); i++ {
		if want[i] == "back" {
			fits = strings.HasPrefix(message(got[i]), backText)
		} else {
			fits = strings.HasPrefix(message(got[i]), lostText) && strings.Contains(got[i].Text, want[i])
		}
	}
	if !fits {
		var texts []string
		for _, l := range got {
			texts = append(texts, strings.TrimSpace(l.Text))
		}
		s.t.Errorf("the log has\n%s\nwant %q", strings.Join(texts, "\n"), want)
	}
}

// status returns the current status line for the service manager.
func (s *env) status() string {
	line := ""
	for _, n := range s.daemon.Notices() {
		if v, ok := n.Value("STATUS"); ok {
			line = v
		}
	}
	return line
}

// showsProblem waits until the status line shows the time and the cause of the problem.
func (s *env) showsProblem(texts ...string) {
	s.t.Helper()
	wait.Within(s.t, soon, "a status line with "+strings.Join(texts, ", "), func() bool {
		return lab.HasAll(s.status(), append(texts, "API server has not answered since ")...)
	})
}

// hold waits while a problem lasts, during which the daemon must not log anything new about
// the server.
func (s *env) hold(d time.Duration) {
	s.t.Helper()
	before := len(s.lines())
	select {
	case <-time.After(d):
	case <-s.daemon.Done():
		s.t.Fatal("the daemon has died")
	}
	if now := s.lines(); len(now) != before {
		s.t.Errorf("%d more log lines while nothing changed, such as %s", len(now)-before, now[len(now)-1].Text)
	}
}
