package mountstate

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	noon    = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	running = Daemon{Running: true, PID: 1, API: APIConnected}
)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

func agoP(d time.Duration) *time.Time { t := ago(d); return &t }

// node returns the document of a node whose daemon runs.
func node(mounts ...Mount) *Mounts {
	return &Mounts{Version: MountsVersion, Node: "compute-07", Time: noon, Daemon: running, Mounts: mounts}
}

// Each cause is a problem from the moment at which its grace period ends, and not before.
func TestCauses(t *testing.T) {
	const path = "/mnt/nnf/06ef9d54-5f0b-4b39-b1f4-8e2c5a7f3c11-0"
	mount := func(state State, phase string, failure *Failure) func(time.Duration) *Mounts {
		return func(age time.Duration) *Mounts {
			m := Mount{ClientMount: "job-xfs", Workflow: "job", Path: path, Type: "xfs", State: state, Phase: phase, Since: ago(age)}
			if failure != nil {
				f := *failure
				f.Since = ago(age)
				m.Since, m.Failure = ago(time.Second), &f // the latest attempt
			}
			return node(m)
		}
	}
	hanging := func(state State) func(time.Duration) *Mounts {
		return func(age time.Duration) *Mounts {
			return node(Mount{Path: path, State: state, Phase: PhaseUnmount, Since: ago(time.Second), Commands: []Command{
				{PID: 3210, Program: "lvs", Started: ago(0), Kernel: true}, {PID: 3211, Program: "umount", Started: ago(age), Kernel: true},
			}})
		}
	}
	daemon := func(d Daemon) func(time.Duration) *Mounts {
		return func(age time.Duration) *Mounts {
			doc := node()
			doc.Daemon = d
			doc.Daemon.Since, doc.Daemon.APISince = agoP(age), agoP(age)
			return doc
		}
	}
	for name, tt := range map[string]struct {
		doc    func(age time.Duration) *Mounts
		cause  Cause
		action Action
		grace  time.Duration
		line   string // with an age of a day
	}{
		"stuck command":           {hanging(Stuck), CauseStuck, ActionDrain, 5 * time.Minute, "unmount of " + path + " stuck for 24h: umount (pid 3211) waits in the kernel"},
		"command hangs unnoticed": {hanging(Unmounting), CauseStuck, ActionDrain, 5 * time.Minute, "unmount of " + path + " stuck for 24h: umount (pid 3211) waits in the kernel"},
		"stuck, no command seen":  {mount(Stuck, PhaseMount, nil), CauseStuck, ActionDrain, 5 * time.Minute, "mount of " + path + " stuck for 24h: a command waits in the kernel"},
		"stuck failure":           {mount(Failed, PhaseMount, &Failure{Kind: FailureStuck, Text: "an earlier command still hangs"}), CauseStuck, ActionDrain, 5 * time.Minute, "mount of " + path + " stuck for 24h: an earlier command still hangs"},
		"device gone":             {mount(Failed, PhaseUnmount, &Failure{Kind: FailureDevice, Text: "volume group vg is missing"}), CauseDevice, ActionDrain, 2 * time.Minute, "unmount of " + path + " without its device for 24h: volume group vg is missing"},
		"device of a mount gone":  {mount(Mounted, PhaseMount, &Failure{Kind: FailureDevice, Text: "I/O error"}), CauseDevice, ActionDrain, 2 * time.Minute, "mount of " + path + " without its device for 24h: I/O error"},
		"device not attached":     {mount(Failed, PhaseMount, &Failure{Kind: FailureDevice, Text: "timeout waiting for VG"}), CauseDevice, ActionWait, 2 * time.Minute, "mount of " + path + " without its device for 24h: timeout waiting for VG"},
		"orphan":                  {mount(Orphan, "", nil), CauseOrphan, ActionDrain, 5 * time.Minute, "mount of " + path + " orphaned for 24h: ClientMount job-xfs no longer exists"},
		"failed":                  {mount(Failed, PhaseMount, &Failure{Kind: FailureOther, Text: "unknown filesystem type"}), CauseFailed, ActionWait, 5 * time.Minute, "mount of " + path + " failing for 24h: unknown filesystem type"},
		"failed, no reason":       {mount(Failed, PhaseMount, nil), CauseFailed, ActionWait, 5 * time.Minute, "mount of " + path + " failing for 24h: attempts fail"},
		"busy":                    {mount(Busy, PhaseUnmount, &Failure{Kind: FailureBusy, Text: "target is busy"}), CauseBusy, ActionWait, 10 * time.Minute, "unmount of " + path + " busy for 24h: target is busy"},
		"mounting":                {mount(Mounting, PhaseMount, nil), CauseSlow, ActionWait, 10 * time.Minute, "mount of " + path + " running for 24h"},
		"unmounting":              {mount(Unmounting, PhaseUnmount, nil), CauseSlow, ActionWait, 10 * time.Minute, "unmount of " + path + " running for 24h"},
		"request fails":           {mount(Mounted, PhaseMount, &Failure{Kind: FailureAPI, Text: "status: EOF"}), CauseAPI, ActionWait, 10 * time.Minute, "mount of " + path + " waiting for the API server for 24h: status: EOF"},
		"daemon stopped":          {daemon(Daemon{API: APIUnknown}), CauseDaemon, ActionWait, 2 * time.Minute, "clientmountd not running for 24h"},
		"API server away":         {daemon(Daemon{Running: true, API: APIUnreachable, APIError: "connection refused"}), CauseAPI, ActionWait, 10 * time.Minute, "API server not reached for 24h: connection refused"},
		"never connected":         {daemon(Daemon{Running: true, API: APIConnecting}), CauseAPI, ActionWait, 10 * time.Minute, "API server not reached for 24h"},
	} {
		t.Run(name, func(t *testing.T) {
			if h := Evaluate(tt.doc(tt.grace-time.Nanosecond), DefaultGrace(), noon); h.Verdict != VerdictOK || h.Action != ActionNone || h.Line != "" || len(h.Problems) != 0 {
				t.Errorf("before the end of the grace period: %+v", h)
			}
			if h := Evaluate(tt.doc(tt.grace), DefaultGrace(), noon); h.Verdict != VerdictProblem || h.Action != tt.action || len(h.Problems) != 1 || h.Problems[0].Cause != tt.cause {
				t.Errorf("at the end of the grace period: %+v", h)
			}
			h := Evaluate(tt.doc(24*time.Hour), DefaultGrace(), noon)
			if h.Line != tt.line {
				t.Errorf("line %q, want %q", h.Line, tt.line)
			}
			if h.OnlyDrain(); (h.Verdict == VerdictProblem) != (tt.action == ActionDrain) {
				t.Errorf("only what needs a drain: %+v", h)
			}
			if h := Evaluate(tt.doc(time.Hour), Grace{tt.cause: 2 * time.Hour}, noon); tt.cause != CauseStuck && h.Verdict != VerdictOK {
				t.Errorf("with a longer grace period: %+v", h)
			}
		})
	}
}

// A command that has just started to wait in the kernel does not hide what was wrong before.
func TestYoungHang(t *testing.T) {
	hang := []Command{{PID: 1, Program: "lvs", Started: ago(time.Minute), Kernel: true}}
	failing := Mount{Path: "/mnt/x", State: Stuck, Phase: PhaseMount, Since: ago(time.Minute), Commands: hang, Failure: &Failure{Kind: FailureOther, Text: "no route", Since: ago(20 * time.Minute)}}
	if h := Evaluate(node(failing), DefaultGrace(), noon); h.Line != "mount of /mnt/x failing for 20m: no route" || h.Action != ActionWait {
		t.Errorf("%+v", h)
	}
	orphan := Mount{Path: "/mnt/x", ClientMount: "job", State: Orphan, Since: ago(time.Hour), Commands: hang}
	if h := Evaluate(node(orphan), DefaultGrace(), noon); h.Line != "mount of /mnt/x orphaned for 1h: ClientMount job no longer exists" {
		t.Errorf("%+v", h)
	}
	if s := failing.Sentence(noon); s != "mount of /mnt/x stuck for 1m: lvs (pid 1) waits in the kernel" {
		t.Error(s)
	}
}

// When the device of a mounted file system was lost is not known if no attempt has failed.
func TestDeviceLostUnnoticed(t *testing.T) {
	m := Mount{Path: "/mnt/x", State: Failed, Since: ago(time.Hour), Failure: &Failure{Kind: FailureDevice, Text: "the device 253:7 no longer exists", Since: ago(time.Hour)}}
	h := Evaluate(node(m), DefaultGrace(), noon)
	if h.Line != "mount of /mnt/x without its device: the device 253:7 no longer exists" || h.Action != ActionDrain || h.Problems[0].Since != nil {
		t.Errorf("%+v", h)
	}
}

func TestFineNode(t *testing.T) {
	for name, doc := range map[string]*Mounts{
		"no mounts": node(),
		"mounted":   node(Mount{State: Mounted, Since: ago(time.Hour)}),
		"unmounted": node(Mount{State: Unmounted, Since: ago(time.Hour)}),
	} {
		if h := Evaluate(doc, Grace{}, noon); h.Verdict != VerdictOK || h.Action != ActionNone || h.Line != "" || h.Problems == nil || len(h.Problems) > 0 || h.Node != "compute-07" {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// A refused ClientMount is in the document, but is not a problem of the node.
func TestRefused(t *testing.T) {
	refused := Mount{ClientMount: "x", State: Failed, Phase: PhaseMount, Path: "/mnt/x", Failure: &Failure{Kind: FailureRefused, Text: "outside mount.roots"}}
	h := Evaluate(node(refused), DefaultGrace(), noon)
	if h.Verdict != VerdictOK || h.Action != ActionNone || h.Line != "" || len(h.Problems) != 1 || h.Problems[0].Cause != CauseRefused {
		t.Errorf("%+v", h)
	}
	h = Evaluate(node(refused, Mount{State: Busy, Phase: PhaseUnmount, Path: "/mnt/y", Since: ago(time.Hour)}), DefaultGrace(), noon)
	if h.Verdict != VerdictProblem || h.Action != ActionWait || h.Line != "unmount of /mnt/y busy for 1h: attempts fail" {
		t.Errorf("%+v", h)
	}
}

// The most urgent problem is in the line: a drain before anything else, then by cause, then the oldest.
func TestOrder(t *testing.T) {
	doc := node(
		Mount{Path: "/mnt/busy", State: Busy, Phase: PhaseUnmount, Since: ago(48 * time.Hour)},
		Mount{Path: "/mnt/waits", State: Failed, Phase: PhaseMount, Failure: &Failure{Kind: FailureDevice, Since: ago(time.Hour)}},
		Mount{Path: "/mnt/young", State: Orphan, Since: ago(time.Hour)},
		Mount{Path: "/mnt/old", State: Orphan, Since: ago(2 * time.Hour)},
		Mount{Path: "/mnt/gone", State: Failed, Phase: PhaseUnmount, Failure: &Failure{Kind: FailureDevice, Since: ago(time.Hour)}},
		Mount{Path: "/mnt/refused", State: Failed, Phase: PhaseMount, Failure: &Failure{Kind: FailureRefused}},
	)
	doc.Unreadable = []string{"record x"}
	doc.Daemon = Daemon{API: APIUnknown}
	h := Evaluate(doc, DefaultGrace(), noon)
	var order []string
	for _, p := range h.Problems {
		order = append(order, string(p.Cause)+" "+p.Path)
	}
	want := []string{"device /mnt/gone", "orphan /mnt/old", "orphan /mnt/young", "record ", "device /mnt/waits", "busy /mnt/busy", "daemon ", "refused /mnt/refused"}
	if !reflect.DeepEqual(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
	if !strings.HasSuffix(h.Line, "; and 6 more") {
		t.Errorf("line %q", h.Line)
	}
	if h.OnlyDrain(); len(h.Problems) != 4 || !strings.HasSuffix(h.Line, "; and 3 more") {
		t.Errorf("only what needs a drain: %+v", h)
	}
}

// A condition of unknown age is a problem immediately.
func TestUnknownAge(t *testing.T) {
	doc := node(Mount{Path: "/mnt/x", State: Orphan, ClientMount: "x"})
	doc.Unreadable = []string{"record cannot be used: /run/x is damaged"}
	doc.Daemon = Daemon{API: APIUnknown}
	h := Evaluate(doc, DefaultGrace(), noon)
	var lines []string
	for _, p := range h.Problems {
		lines = append(lines, p.Text)
	}
	want := []string{"mount of /mnt/x orphaned: ClientMount x no longer exists", "record cannot be used: /run/x is damaged", "clientmountd not running"}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("%q", lines)
	}
}

// If the clock was set back, the age of an earlier condition is not known.
func TestClockSetBack(t *testing.T) {
	orphan := func(since time.Time) []Problem {
		return Evaluate(node(Mount{Path: "/mnt/x", State: Orphan, ClientMount: "x", Since: since}), DefaultGrace(), noon).Problems
	}
	got := orphan(noon.AddDate(6, 0, 0))
	if len(got) != 1 || got[0].Since != nil || got[0].Text != "mount of /mnt/x orphaned: ClientMount x no longer exists" {
		t.Errorf("%+v", got)
	}
	// A step of a few seconds has no effect.
	if got := orphan(noon.Add(10 * time.Second)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// A command for a ClientMount with several mounts is one problem.
func TestOneCommandIsOneProblem(t *testing.T) {
	c := []Command{{PID: 7, Program: "umount", Started: ago(time.Hour), Kernel: true, Waits: "rpc_wait"}}
	h := Evaluate(node(
		Mount{Path: "/mnt/a", State: Mounted, Since: ago(time.Hour), Commands: c},
		Mount{Path: "/mnt/b", State: Unmounting, Phase: PhaseUnmount, Since: ago(time.Hour), Commands: c},
	), DefaultGrace(), noon)
	if len(h.Problems) != 1 || h.Line != "unmount of /mnt/b stuck for 1h: umount (pid 7) waits in the kernel (rpc_wait)" {
		t.Errorf("%+v", h)
	}
}

// Whatever the texts contain, the line is one line of at most 200 bytes, without control characters.
func TestLineIsBounded(t *testing.T) {
	nasty := strings.Repeat("x\n\x1b[31m\u202e漢", 100)
	for name, m := range map[string]Mount{
		"failure": {Path: "/mnt/" + nasty, State: Failed, Phase: PhaseMount, Failure: &Failure{Kind: FailureOther, Text: nasty, Since: ago(time.Hour)}},
		"holders": {Path: "/mnt/x", State: Busy, Phase: PhaseUnmount, Since: ago(time.Hour), Holders: []Holder{{PID: 1, Text: nasty}, {}}},
		"orphan":  {Path: "/mnt/x", State: Orphan, ClientMount: nasty, Since: ago(time.Hour)},
		"command": {Path: "/mnt/x", State: Stuck, Since: ago(time.Hour), Commands: []Command{{Program: nasty, Waits: nasty, Kernel: true}}},
	} {
		h := Evaluate(node(m, Mount{State: Orphan}), DefaultGrace(), noon)
		if len(h.Line) > 200 || strings.ContainsAny(h.Line, "\n\x1b\u202e") || h.Line == "" || !strings.HasSuffix(h.Line, "; and 1 more") {
			t.Errorf("%s: %d bytes: %q", name, len(h.Line), h.Line)
		}
		for _, p := range h.Problems {
			if len(p.Text) > problemLimit+len("…") || strings.ContainsAny(p.Text, "\n\x1b") {
				t.Errorf("%s: %q", name, p.Text)
			}
		}
		if s := m.Sentence(noon); len(s) > problemLimit+len("…") || strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%s: sentence %q", name, s)
		}
	}
}

func TestUnknownHealth(t *testing.T) {
	h := UnknownHealth(errors.New("only root\ncan"), noon)
	if h.OnlyDrain(); h.Verdict != VerdictUnknown || h.Action != ActionNone || h.Error != `only root\ncan` || h.Line != "" {
		t.Errorf("%+v", h)
	}
}

func TestParseHealth(t *testing.T) {
	want := Evaluate(node(Mount{Path: "/mnt/x", State: Orphan, Since: ago(time.Hour)}), DefaultGrace(), noon)
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseHealth(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\n%+v", err, got, want)
	}
	if _, err := ParseHealth([]byte(`{"version":2}`)); err == nil || !strings.Contains(err.Error(), "unsupported version 2") {
		t.Error(err)
	}
}

// Each cause has one row, and each state has a sentence.
func TestTables(t *testing.T) {
	seen := map[Cause]bool{}
	for _, c := range Causes {
		if seen[c.Cause] || c.Meaning == "" || c.Fixed != (c.Grace == 0) {
			t.Errorf("%+v", c)
		}
		seen[c.Cause] = true
	}
	for _, s := range States {
		m := Mount{Path: "/mnt/x", State: s, Since: ago(90 * time.Second)}
		if got := m.Sentence(noon); !strings.Contains(got, "/mnt/x") || !strings.Contains(got, " for 1m") {
			t.Errorf("%s: %q", s, got)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59*time.Minute + 59*time.Second: "59m",
		time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := Age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// A token that cannot be renewed needs an action only after half of the time for that; an expired one
// needs an administrator.
func TestTokenProblems(t *testing.T) {
	expires := noon.Add(time.Hour)
	for condition, tt := range map[string]struct {
		action Action
		line   string
	}{
		TokenValid:    {ActionNone, ""},
		TokenRetrying: {ActionNone, ""},
		TokenFailing:  {ActionWait, "token expires at 2026-11-30T13:00:00Z and cannot be renewed: do it"},
		TokenUnsaved:  {ActionWait, "renewed token not stored: broken"},
		TokenExpired:  {ActionDrain, "token expired at 2026-11-30T13:00:00Z: do it"},
	} {
		doc := node()
		doc.Daemon.Token = &Token{Identity: "per-node", Expires: &expires, Condition: condition, Since: agoP(0), Error: "broken", Hint: "do it"}
		h := Evaluate(doc, DefaultGrace(), noon)
		if h.Action != tt.action || h.Line != tt.line || h.Token != doc.Daemon.Token {
			t.Errorf("%s: %+v", condition, h)
		}
		// Mounts do not need the token of nnf-dm.
		doc.Daemon.Token, doc.MoverToken = nil, doc.Daemon.Token
		h = Evaluate(doc, DefaultGrace(), noon)
		if tt.line != "" {
			tt.action, tt.line = ActionWait, "nnf-dm: "+tt.line
		}
		if h.Action != tt.action || h.Line != tt.line || h.MoverToken != doc.MoverToken || h.Token != nil {
			t.Errorf("nnf-dm, %s: %+v", condition, h)
		}
		if h.OnlyDrain(); h.Verdict != VerdictOK {
			t.Errorf("nnf-dm, %s: %+v", condition, h)
		}
	}
	doc := node()
	doc.MoverToken = &Token{Condition: TokenUnknown, Error: "damaged"}
	if h := Evaluate(doc, DefaultGrace(), noon); h.Verdict != VerdictOK {
		t.Errorf("%+v", h)
	}
}
