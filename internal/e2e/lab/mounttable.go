package lab

import (
	"os"
	"strconv"
	"strings"
)

// Mount is one line of the kernel's mount table.
type Mount struct {
	ID      int
	Device  string // major:minor
	Root    string // what of the file system is mounted; the device for a bound node
	Target  string
	Type    string
	Source  string
	Options string
}

// mountTable reads this process's table. It is written here again, and not
// borrowed from the daemons, because it is what they are judged by.
func mountTable() ([]Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []Mount
	for line := range strings.Lines(string(data)) {
		head, tail, ok := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 6 || len(t) < 2 {
			continue
		}
		id, err := strconv.Atoi(h[0])
		if err != nil {
			continue
		}
		list = append(list, Mount{
			ID: id, Device: h[2], Root: unescape(h[3]), Target: unescape(h[4]), Options: h[5],
			Type: t[0], Source: unescape(t[1]),
		})
	}
	return list, nil
}

// unescape decodes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Mounts lists what was mounted since the laboratory was built, oldest first.
func (l *Lab) Mounts() ([]Mount, error) {
	all, err := mountTable()
	var fresh []Mount
	for _, m := range all {
		bound := strings.HasPrefix(m.Target, l.Mapper+"/") // a node that could only be borrowed
		if !l.baseline[m.ID] && !bound {
			fresh = append(fresh, m)
		}
	}
	return fresh, err
}

// MountAt returns the topmost mount at a path.
func (l *Lab) MountAt(path string) (Mount, bool, error) {
	all, err := l.Mounts()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Target == path {
			return all[i], true, nil
		}
	}
	return Mount{}, false, err
}
