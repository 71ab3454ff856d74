package target

import (
	"strconv"
	"time"
)

// spare is what a file system has to have left when everything is in place, in
// KiB.
const spare = 1024

// space finds out before anything is sent that a disk would be full.
func (d *differ) space() error {
	staging, bare := d.p.Bytes()/1024, d.bare/1024
	if d.p.Empty() {
		return nil
	}
	for _, need := range []struct {
		folder string
		kib    int64
	}{{"/var/lib/nnf-deploy", staging}, {"/usr/bin", bare}, {"/etc", 0}} {
		free, known := d.r.Space[need.folder]
		if !known {
			continue
		}
		if need.folder == "/usr/bin" && free == d.r.Space["/var/lib/nnf-deploy"] {
			need.kib += staging // most likely the same file system
		}
		if free < need.kib+spare {
			return problemf("make room, or move the folder to another file system", "the file system of %s is full: %s free, %s needed", need.folder, size(free), size(need.kib+spare))
		}
	}
	return nil
}

func size(kib int64) string { return strconv.FormatFloat(float64(kib)/1024, 'f', 1, 64) + " MiB" }

func seconds(d time.Duration) string {
	if d <= 0 {
		d = time.Minute
	}
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}
