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
func (d *demo) skipLog() { d.seen = len(d.daemon.Log()) }

// showSteps shows the steps that the daemon has logged since skipLog, with its
// own times.
func (d *demo) showSteps() {
	for _, l := range d.daemon.Log()[d.seen:] {
		if l.Fields["msg"] != "step done" {
			continue
		}
		name, _ := l.Fields["step"].(string)
		d.out.step(name, meanings[name], duration(l))
	}
}

// duration reads the duration_ms of a log line.
func duration(l lab.LogLine) time.Duration {
	ms, _ := l.Fields["duration_ms"].(float64)
	return time.Duration(ms * float64(time.Millisecond))
}

// wrap breaks a text at blanks so that lines have at most width bytes, as far
// as its words allow.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch {
		case column == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
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
