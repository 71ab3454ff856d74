package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// get returns the object as it is now.
func (s *scene) get(name string) lab.Object {
	s.Helper()
	o, err := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
	s.must(err)
	return o
}

// logged waits for a line with the message about an object, and returns its
// fields.
func (s *scene) logged(message, name string) map[string]any {
	s.Helper()
	return s.line(fmt.Sprintf("%q about %s", message, name), func(f map[string]any) bool {
		return f["msg"] == message && (name == "" || f["clientmount"] == name)
	})
}

func (s *scene) line(what string, fits func(map[string]any) bool) map[string]any {
	s.Helper()
	l, err := s.d.WaitLog(s.Context(patience), func(l lab.LogLine) bool { return l.Fields != nil && fits(l.Fields) })
	if err != nil {
		s.Fatalf("no line %s in the log: %v", what, err)
	}
	return l.Fields
}

// count tells how many lines fit.

// alive fails when the daemon has ended.
func (s *scene) alive() {
	s.Helper()
	select {
	case <-s.d.Done():
		s.Fatal("the daemon has ended")
	default:
	}
}

// failed waits for an error of the severity whose text has all the parts.
func (s *scene) failed(name, severity string, parts ...string) lab.Object {
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

// follow notes each state of an object that others can see, from before it
// exists until it is gone.
func (s *scene) follow(name string) (states func() []string) {
	var list []string
	done, begun := make(chan struct{}), make(chan struct{})
	ctx := s.Context(patience)
	go func() {
		defer close(done)
		seen := false
		_, _ = s.Cluster.WaitFor(ctx, "ClientMount", s.Node, name, func(o lab.Object) bool {
			if o == nil {
				if !seen && len(list) == 0 {
					select {
					case <-begun:
					default:
						close(begun)
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
	<-begun
	return func() []string { <-done; return list }
}

// stateWords puts finalizer, deletion and status into words.
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
