package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// What the steps are, for people.
var meanings = map[string]string{
	"waitVG":     "vgs: the volume group is seen",
	"lockStart":  "vgchange --lock-start",
	"activate":   "lvchange --activate y",
	"waitDevice": "the kernel reports the device node (inotify)",
	"mount":      "mount target made, mount(8), device number checked",
	"chown":      "owner of the mounted root",
	"unmount":    "checked that it is ours, umount(8), target removed",
	"deactivate": "lvchange --activate n",
	"lockStop":   "vgchange --lock-stop",
}

// skipLog forgets what the daemon has logged so far.
func (p *play) skipLog() { p.seen = len(p.daemon.Log()) }

// showSteps shows the steps that the daemon has logged since skipLog, with its
// own times.
func (p *play) showSteps() {
	for _, l := range p.daemon.Log()[p.seen:] {
		if l.Fields["msg"] != "step done" {
			continue
		}
		name, _ := l.Fields["step"].(string)
		p.out.step(name, meanings[name], duration(l))
	}
}

// tail is the end of a daemon's log, for a failure of the show.
func tail(d *lab.Daemon) string {
	if d == nil {
		return ""
	}
	lines := d.Log()
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-8):] {
		fmt.Fprintf(&b, "\n  %s", strings.TrimSpace(l.Text))
	}
	return b.String()
}

// duration reads the duration_ms of a log line.
func duration(l lab.LogLine) time.Duration {
	ms, _ := l.Fields["duration_ms"].(float64)
	return time.Duration(ms * float64(time.Millisecond))
}

// excerpt is what of an object a reader needs, as YAML.
func excerpt(o lab.Object) string {
	m := lab.Object{"mount": o.At("spec", "mounts", 0)}
	text := func(path ...string) string { return m.String(append([]string{"mount"}, path...)...) }
	return fmt.Sprintf(`kind: ClientMount
metadata: {name: %s, namespace: %s}
spec:
  node: %s
  desiredState: %s
  mounts:
  - {mountPath: %s, type: %s, device: {type: %s}}   # and more
`, o.Name(), o.Namespace(), o.String("spec", "node"), o.String("spec", "desiredState"),
		text("mountPath"), text("type"), text("device", "type"))
}

// line is an object in YAML's short form, keys sorted.
func line(v any) string {
	switch v := v.(type) {
	case lab.Object:
		return line(map[string]any(v))
	case map[string]any:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, k+": "+line(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, line(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v)
}
