package main

import (
	"fmt"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// meanings describes the steps of the daemon.
var meanings = map[string]string{
	"waitVG":     "vgs: the volume group is visible",
	"lockStart":  "vgchange --lock-start",
	"activate":   "lvchange --activate y",
	"waitDevice": "the device node exists (inotify)",
	"mount":      "create the mount target, mount(8), check the device number",
	"chown":      "set the owner of the mounted root directory",
	"unmount":    "check that the daemon mounted it, umount(8), remove the target",
	"deactivate": "lvchange --activate n",
	"lockStop":   "vgchange --lock-stop",
}

// skipLog marks all log lines so far as shown.
func (d *demo) skipLog() { d.seen = len(d.daemon.Log()) }

// showSteps shows the steps that the daemon has logged since skipLog, with the
// durations from the log.
func (d *demo) showSteps() {
	for _, l := range d.daemon.Log()[d.seen:] {
		if l.Fields["msg"] != "step done" {
			continue
		}
		name, _ := l.Fields["step"].(string)
		d.out.step(name, meanings[name], duration(l))
	}
}

// duration returns the duration_ms of a log line.
func duration(l lab.LogLine) time.Duration {
	ms, _ := l.Fields["duration_ms"].(float64)
	return time.Duration(ms * float64(time.Millisecond))
}

// excerpt returns the relevant fields of a ClientMount as YAML.
func excerpt(o lab.Object) string {
	m := lab.Object{"mount": o.At("spec", "mounts", 0)}
	text := func(path ...string) string { return m.String(append([]string{"mount"}, path...)...) }
	return fmt.Sprintf(`kind: ClientMount
metadata: {name: %s, namespace: %s}
spec:
  node: %s
  desiredState: %s
  mounts:
  - {mountPath: %s, type: %s, device: {type: %s}}   # and other fields
`, o.Name(), o.Namespace(), o.String("spec", "node"), o.String("spec", "desiredState"),
		text("mountPath"), text("type"), text("device", "type"))
}
