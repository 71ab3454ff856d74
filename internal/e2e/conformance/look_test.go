package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// source returns the source in the mount table, which is D in the tables of commands.
func (s *env) source(index int) string {
	if v := s.volumes[index]; v != nil {
		return v.Node
	}
	return mgs + ":/" + fsName(index)
}

// words replaces the placeholders in lines of the kind's tables for an entry.
func (s *env) words(lines []string, m fixture.MountSpec) []string {
	vg, lv := "", ""
	if v := s.volumes[m.Index]; v != nil {
		vg, lv = v.VG, v.LV
	}
	var out []string
	for _, line := range lines {
		words := strings.Fields(line)
		for i, w := range words {
			switch w {
			case "V":
				words[i] = vg
			case "V/L":
				words[i] = vg + "/" + lv
			case "D":
				words[i] = s.source(m.Index)
			case "P":
				words[i] = m.Path
			}
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// commands returns the command lines since the log was cleared. For queries it returns
// only the program, because their exact form is not part of the behaviour; it checks their
// options. It skips helpers of mount(8), which the daemon does not call.
func (s *env) commands() []string {
	s.Helper()
	calls, err := s.Log()
	s.Must(err)
	var out []string
	for _, c := range calls {
		line := strings.Join(c.Argv, " ")
		switch c.Tool {
		case "mount.lustre", "mount.gfs2":
			continue
		case "lvs", "vgs":
			if !strings.Contains(line, "--nolock") || !strings.Contains(line, "--reportformat json") {
				s.Errorf("%s %s: it must not take a lock and must print JSON", c.Tool, line)
			}
			out = append(out, c.Tool)
		default:
			out = append(out, c.Tool+" "+line)
		}
	}
	return out
}

// called compares the calls with want and clears the log.
func (s *env) called(want ...string) {
	s.Helper()
	if got := s.commands(); !slices.Equal(got, want) {
		s.Errorf("called:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	s.Must(s.ClearLog())
}

// mounted checks that the entry is mounted exactly once, and its owner.
func (s *env) mounted(m fixture.MountSpec) {
	s.Helper()
	all, err := s.Mounts()
	s.Must(err)
	n := 0
	for _, have := range all {
		if have.Target != m.Path {
			continue
		}
		n++
		if s.k.mounted != "" && (have.Type != s.k.mounted || have.Source != s.source(m.Index)) {
			s.Errorf("%s: type %s from %s, want %s from %s", m.Path, have.Type, have.Source, s.k.mounted, s.source(m.Index))
		}
		if s.k.file && filepath.Base(have.Root) != filepath.Base(s.source(m.Index)) {
			s.Errorf("%s: bound from %s, want %s", m.Path, have.Root, s.source(m.Index))
		}
	}
	if n != 1 {
		s.Errorf("%s is mounted %d times", m.Path, n)
	}
}

// notMounted checks that nothing is mounted.
func (s *env) notMounted(m fixture.MountSpec) {
	s.Helper()
	if have, ok, err := s.MountAt(m.Path); ok || err != nil {
		s.Errorf("%s is still mounted: %+v %v", m.Path, have, err)
	}
}

// unmounted checks that nothing is mounted and the target was removed.
func (s *env) unmounted(m fixture.MountSpec) {
	s.Helper()
	s.notMounted(m)
	if _, err := os.Lstat(m.Path); !os.IsNotExist(err) {
		s.Errorf("the target %s was not removed: %v", m.Path, err)
	}
}

// owned checks the owner of the mount if the object sets one.
func (s *env) owned(m fixture.MountSpec) {
	s.Helper()
	if !m.Own {
		return
	}
	st, err := os.Stat(m.Path)
	s.Must(err)
	sys := st.Sys().(*syscall.Stat_t)
	if int(sys.Uid) != m.UID || int(sys.Gid) != m.GID || st.Mode()&os.ModeDevice == 0 {
		s.Errorf("%s: uid %d gid %d mode %v, want the device node with %d %d", m.Path, sys.Uid, sys.Gid, st.Mode(), m.UID, m.GID)
	}
}

// get returns the current object.
func (s *env) get(name string) lab.Object {
	s.Helper()
	o, err := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
	s.Must(err)
	return o
}

// logged waits for a log line with the message and the object, and returns its fields.
func (s *env) logged(message, name string) map[string]any {
	s.Helper()
	return s.line(fmt.Sprintf("%q about %s", message, name), func(f map[string]any) bool {
		return f["msg"] == message && (name == "" || f["clientmount"] == name)
	})
}

func (s *env) line(what string, fits func(map[string]any) bool) map[string]any {
	s.Helper()
	l, err := s.d.WaitLog(s.Context(patience), func(l lab.LogLine) bool { return l.Fields != nil && fits(l.Fields) })
	if err != nil {
		s.Fatalf("no log line %s: %v", what, err)
	}
	return l.Fields
}

// alive fails the test if the daemon has exited.
func (s *env) alive() {
	s.Helper()
	select {
	case <-s.d.Done():
		s.Fatal("the daemon has exited")
	default:
	}
}

// failed waits for an error of that severity whose text contains all parts.
func (s *env) failed(name, severity string, parts ...string) lab.Object {
	s.Helper()
	has := func(o lab.Object) bool {
		for _, p := range parts {
			if !strings.Contains(o.DebugMessage(), p) {
				return false
			}
		}
		return o.Severity() == severity
	}
	o, err := s.Cluster.WaitStatus(s.Context(patience), s.Node, name, has)
	if err != nil {
		s.Fatalf("%s: no %s error with %q: %v; the status is %v", name, severity, parts, err, s.get(name)["status"])
	}
	if n := len(o.DebugMessage()); n > 4<<10 {
		s.Errorf("the message has %d bytes", n)
	}
	return o
}

// follow records each visible state of an object, from its creation to its deletion.
func (s *env) follow(name string) (states func() []string) {
	var list []string
	done, started := make(chan struct{}), make(chan struct{})
	ctx := s.Context(patience)
	go func() {
		defer close(done)
		seen := false
		_, _ = s.Cluster.WaitFor(ctx, "ClientMount", s.Node, name, func(o lab.Object) bool {
			if o == nil {
				if !seen && len(list) == 0 {
					select {
					case <-started:
					default:
						close(started)
					}
					return false
				}
				list = append(list, "gone")
				return true
			}
			seen = true
			if text := stateWords(o); len(list) == 0 || list[len(list)-1] != text {
				list = append(list, text)
			}
			return false
		})
	}()
	<-started
	return func() []string { <-done; return list }
}

// stateWords describes finalizer, deletion and status in words.
func stateWords(o lab.Object) string {
	words := []string{"no finalizer"}
	list, _ := o.At("metadata", "finalizers").([]any)
	if slices.Contains(list, any(api.FinalizerClientMount)) {
		words[0] = "held"
	}
	if o.String("metadata", "deletionTimestamp") != "" {
		words = append(words, "deleted")
	}
	mounts, _ := o.At("status", "mounts").([]any)
	for i := range mounts {
		words = append(words, fmt.Sprintf("%v:%v", o.At("status", "mounts", i, "state"), o.At("status", "mounts", i, "ready")))
	}
	if o.At("status", "allReady") == true {
		words = append(words, "all")
	}
	if o.Severity() != "" {
		words = append(words, o.Severity())
	}
	return strings.Join(words, " ")
}

// shows waits until "clientmountd mounts" shows the mount of an object in a state, and returns it.
func (s *env) shows(name string, state mountstate.State) (found mountstate.Mount) {
	s.Helper()
	last := ""
	defer func() {
		if found.State == "" {
			s.Errorf("clientmountd mounts shows %s", last)
		}
	}()
	wait.Until(s.t, name+" is shown as "+string(state), func() bool {
		last = s.asked(cli.ExitOK, "mounts", "-o", "json")
		doc, err := mountstate.ParseMounts([]byte(last))
		s.Must(err)
		if !doc.Daemon.Running || doc.Daemon.API != mountstate.APIConnected || doc.Node != s.Node {
			s.Fatalf("%+v", doc)
		}
		i := slices.IndexFunc(doc.Mounts, func(m mountstate.Mount) bool { return m.ClientMount == name && m.State == state })
		if i >= 0 {
			found = doc.Mounts[i]
		}
		return i >= 0
	})
	return found
}

// question returns a sub-command of clientmountd that reports about the node, and its outputs.
func (s *env) question(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	s.Helper()
	program, err := lab.Binary("clientmountd")
	s.Must(err)
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.Command(program, append(args, "--runtime-directory="+s.Runtime)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// asked runs a sub-command of clientmountd and checks its exit code. It returns the standard output,
// or the standard error if that is where the answer is.
func (s *env) asked(code int, args ...string) string {
	s.Helper()
	cmd, stdout, stderr := s.question(args...)
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		s.Fatalf("clientmountd %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), err, code, stdout, stderr)
	}
	if args[0] == "wait" {
		if stdout.Len() > 0 {
			s.Errorf("clientmountd %s prints %q", strings.Join(args, " "), stdout)
		}
		return stderr.String()
	}
	if stderr.Len() > 0 {
		s.Errorf("clientmountd %s prints errors: %q", strings.Join(args, " "), stderr)
	}
	return stdout.String()
}

// fine checks that "clientmountd health" finds nothing, with grace periods unless others are given.
func (s *env) fine(flags ...string) {
	s.Helper()
	if out := s.asked(cli.ExitOK, append([]string{"health"}, flags...)...); out != "" {
		s.Errorf("clientmountd health %q prints %q", flags, out)
	}
}

// sick checks that "clientmountd health" reports a cause, without its grace period, in one line that
// has all parts. It checks the action, and that within the grace period nothing is reported.
func (s *env) sick(cause mountstate.Cause, action mountstate.Action, parts ...string) {
	s.Helper()
	info := mountstate.Causes[slices.IndexFunc(mountstate.Causes, func(i mountstate.CauseInfo) bool { return i.Cause == cause })]
	var flags []string
	if !info.Fixed {
		flags = append(flags, "--grace-"+string(cause)+"=0s")
	}
	line := s.asked(cli.ExitFailed, append([]string{"health"}, flags...)...)
	if len(line) > 201 || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		s.Errorf("not one short line: %q", line)
	}
	for _, part := range parts {
		if !strings.Contains(line, part) {
			s.Errorf("clientmountd health prints %q, want %q", line, part)
		}
	}
	if flags = append(flags, "--drain-only"); action == mountstate.ActionDrain {
		s.asked(cli.ExitFailed, append([]string{"health"}, flags...)...)
	} else {
		s.fine(flags...)
	}
	if !info.Fixed {
		s.fine()
	}
}

// late checks that "clientmountd wait" ends after its time limit with a reason that has all parts.
func (s *env) late(name string, state mountstate.State, parts ...string) {
	s.Helper()
	reason := s.asked(clientmountd.ExitTimeout, "wait", "--clientmount="+name, "--for="+string(state), "--timeout=0s")
	for _, part := range append(parts, "not "+string(state)+" within 0s: ") {
		if !strings.Contains(reason, part) {
			s.Errorf("clientmountd wait prints %q, want %q", reason, part)
		}
	}
}

// waits starts "clientmountd wait". The returned function waits for its end, and checks that the state
// is reached without a message.
func (s *env) waits(state mountstate.State) (reached func()) {
	s.Helper()
	cmd, stdout, stderr := s.question("wait", "--workflow=job7", "--for="+string(state), "--timeout="+patience.String())
	s.Must(cmd.Start())
	return func() {
		s.Helper()
		if err := cmd.Wait(); err != nil || stdout.Len()+stderr.Len() > 0 {
			s.Errorf("clientmountd wait --for %s: %v\n%s%s", state, err, stdout, stderr)
		}
	}
}

// timeline checks that "clientmountd timeline" shows the one life of an object, complete and with
// these steps in this order, in each format.
func (s *env) timeline(name string, steps ...string) {
	s.Helper()
	var doc *mountstate.Timeline
	wait.Until(s.t, "the life of "+name+" has ended", func() bool { // shortly after the object
		var err error
		doc, err = mountstate.ParseTimeline([]byte(s.asked(cli.ExitOK, "timeline", "--workflow=job7", "-o", "json")))
		s.Must(err)
		if len(doc.Lives) > 1 {
			s.Fatalf("%d lives: %+v", len(doc.Lives), doc.Lives)
		}
		return len(doc.Lives) == 1 && doc.Lives[0].Ended != nil
	})
	life := doc.Lives[0]
	if life.ClientMount != name || life.Workflow != "job7" || life.Ready == nil || life.Ended == nil || life.Ready.Before(life.Started) || life.Ended.Before(*life.Ready) || doc.Node != s.Node {
		s.Errorf("%+v", life)
	}
	var got []string
	for _, step := range life.Steps {
		if step.Seconds < 0 || step.Failed || step.Finished.After(*life.Ended) || step.Started.Before(life.Started) {
			s.Errorf("%+v of %+v", step, life)
		}
		if step.Kind != mountstate.StepAPI {
			got = append(got, step.Phase+" "+step.Name)
		}
	}
	if !slices.Equal(got, steps) {
		s.Errorf("steps %q, want %q", got, steps)
	}
	text := s.asked(cli.ExitOK, "timeline")
	var trace struct {
		TraceEvents []struct{ Name, Ph string }
	}
	s.Must(json.Unmarshal([]byte(s.asked(cli.ExitOK, "timeline", "-o", "trace")), &trace))
	for _, step := range life.Steps {
		if short := step.Name[:min(len(step.Name), 19)]; !strings.Contains(text, short) {
			s.Errorf("no step %q in\n%s", step.Name, text)
		}
		if !slices.ContainsFunc(trace.TraceEvents, func(e struct{ Name, Ph string }) bool { return e.Ph == "X" && e.Name == step.Name }) {
			s.Errorf("no event %q in %+v", step.Name, trace.TraceEvents)
		}
	}
	if out := s.asked(cli.ExitOK, "timeline", "--workflow=other", "-o", "json"); strings.Contains(out, "job7") {
		s.Errorf("the timeline of another workflow: %s", out)
	}
}
