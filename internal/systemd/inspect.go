package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Inspection is what systemd has for a service, for diagnosis.
type Inspection struct {
	Status     *Status
	Start      Start             // of the running daemon, or of its next start
	Properties map[string]string // of the service unit, by name; nil: systemd did not report them
	Hidden     []string          // units in /etc that override those of the package, with advice
	Directives []Directive       // of the unit file and its drop-ins, in the order in which they apply
	Files      []string          // these files
}

// maxUnitFile bounds the part of a unit file that is read, in bytes.
const maxUnitFile = 256 << 10

// Inspect returns what systemd has for the service, with these properties of its unit. The error
// is that of "status -o json": the Inspection has what could be found out nevertheless.
func (s *Service) Inspect(ctx context.Context, properties ...string) (*Inspection, error) {
	i := new(Inspection)
	status, err := s.common(ctx)
	if i.Status = status; status == nil {
		return i, err
	}
	i.Start = s.started(ctx, status)
	for _, unit := range s.Units {
		advice, herr := s.hidden(unit.Name)
		if err == nil {
			err = herr
		}
		if advice != "" {
			i.Hidden = append(i.Hidden, advice)
		}
	}
	if status.Service.Installed {
		out, serr := s.systemctl(ctx, "show", "--property="+strings.Join(append([]string{"FragmentPath", "DropInPaths"}, properties...), ","), s.Units[0].Name)
		if serr == nil {
			i.Properties = Properties(out)
		} else if err == nil {
			err = serr
		}
	}
	if fragment := i.Properties["FragmentPath"]; fragment != "" {
		i.Files = append([]string{fragment}, strings.Fields(i.Properties["DropInPaths"])...)
	}
	for _, file := range i.Files {
		text, rerr := s.read(file)
		if rerr != nil && err == nil {
			err = rerr
		}
		i.Directives = append(i.Directives, ParseUnit(file, text)...)
	}
	return i, err
}

func (s *Service) read(file string) (string, error) {
	f, err := os.Open(s.path(file, ""))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxUnitFile))
	return string(data), err
}

// Directive is one line of a unit file, or several lines that continue each other.
type Directive struct {
	File                string
	Line                int // of its first line, counted from 1
	Section, Key, Value string
}

// String returns the place and the text: "FILE:LINE: KEY=VALUE".
func (d Directive) String() string {
	return fmt.Sprintf("%s:%d: %s=%s", d.File, d.Line, d.Key, d.Value)
}

// ParseUnit returns the directives of a unit file (systemd.syntax(7)). It skips invalid lines, as
// systemd does.
func ParseUnit(file, text string) (list []Directive) {
	section, line := "", 0
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxUnitFile+1)
	for lines.Scan() {
		line++
		first, one := line, strings.TrimSpace(lines.Text())
		for strings.HasSuffix(one, `\`) && one[0] != '#' && one[0] != ';' && lines.Scan() {
			line++
			next := strings.TrimSpace(lines.Text())
			if strings.HasPrefix(next, "#") || strings.HasPrefix(next, ";") {
				continue
			}
			one = strings.TrimSuffix(one, `\`) + " " + next
		}
		switch key, value, ok := strings.Cut(one, "="); {
		case one == "" || one[0] == '#' || one[0] == ';':
		case one[0] == '[' && strings.HasSuffix(one, "]"):
			section = one[1 : len(one)-1]
		case ok:
			list = append(list, Directive{file, first, section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return list
}

// no has the harmless values of boolean directives.
var no = []string{"no", "false", "off", "0"}

// Hiding are the directives that give a service a private mount namespace or prevent it from
// mounting, with their harmless values; the empty value is always harmless. Tested with systemd
// 252: mount(8) succeeds, but the mount is not visible on the host.
var Hiding = map[string][]string{
	"PrivateMounts": no, "PrivateTmp": no, "PrivateDevices": no, "PrivateIPC": no, "PrivateUsers": no, "PrivatePIDs": no, "DynamicUser": no,
	"ProtectSystem": no, "ProtectHome": no, "ProtectKernelTunables": no, "ProtectKernelModules": no, "ProtectKernelLogs": no, "ProtectControlGroups": no,
	"ProtectProc": {"default"}, "ProcSubset": {"all"}, "MountFlags": {"shared"},
	"ReadOnlyPaths": nil, "ReadWritePaths": nil, "InaccessiblePaths": nil, "ExecPaths": nil, "NoExecPaths": nil,
	"BindPaths": nil, "BindReadOnlyPaths": nil, "BindLogSockets": no, "TemporaryFileSystem": nil,
	"RootDirectory": {"/"}, "RootImage": nil, "RootEphemeral": no, "MountImages": nil, "ExtensionImages": nil, "ExtensionDirectories": nil, "LogNamespace": nil,
	// From 254, a private network namespace implies private mounts.
	"PrivateNetwork": no, "NetworkNamespacePath": nil, "IPCNamespacePath": nil,
	"User": {"root", "0"},
}

// Hides reports whether the directive alone gives a service a private mount namespace or prevents
// it from mounting.
func (d Directive) Hides() bool {
	harmless, listed := Hiding[d.Key]
	return listed && d.Value != "" && !slices.Contains(harmless, d.Value)
}

// HidingOf returns the directives of a service that are in effect and that hide its mounts. A later
// harmless value of the same directive clears it.
func HidingOf(list []Directive) (hiding []Directive) {
	for _, d := range list {
		switch {
		case d.Section != "Service":
		case d.Hides():
			hiding = append(hiding, d)
		case Hiding[d.Key] != nil || d.Value == "":
			hiding = slices.DeleteFunc(hiding, func(o Directive) bool { return o.Key == d.Key })
		}
	}
	return hiding
}

// ParseSpan parses a time span of systemd (systemd.time(7)), in the form in which systemctl prints
// it and units contain it. infinity is returned as a negative duration.
func ParseSpan(s string) (time.Duration, error) {
	if s == "infinity" {
		return -1, nil
	}
	units := map[string]time.Duration{
		"": time.Second, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "sec": time.Second, "min": time.Minute, "m": time.Minute,
		"h": time.Hour, "hr": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}
	var sum time.Duration
	for _, word := range strings.Fields(s) {
		digits := strings.TrimRight(word, "abcdefghijklmnopqrstuvwxyz")
		unit, known := units[word[len(digits):]]
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil || !known || n < 0 || n > 1e9 {
			return 0, fmt.Errorf("%.80q is not a time span", s)
		}
		sum += time.Duration(n * float64(unit))
	}
	if s == "" {
		return 0, errors.New("there is no time span")
	}
	return sum, nil
}

// ParseBytes parses a number of bytes, in the form in which systemctl prints it and units contain
// it. infinity is returned as a negative number.
func ParseBytes(s string) (int64, error) {
	if s == "infinity" {
		return -1, nil
	}
	digits := strings.TrimRight(s, "KMGT")
	shift, known := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%.80q is not a number of bytes", s)
	}
	return n << shift, nil
}
