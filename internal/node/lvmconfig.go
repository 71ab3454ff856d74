package node

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// LVMSettings are the settings of LVM in effect, by section/name (lvm.conf(5)). A setting that has
// no default and is not set is missing.
type LVMSettings map[string][]string

// Get returns the first value of a setting, or "".
func (s LVMSettings) Get(name string) string {
	if values := s[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// On reports whether a setting of type bool is on.
func (s LVMSettings) On(name string) bool {
	n, err := strconv.Atoi(s.Get(name))
	return err == nil && n != 0
}

// LVMSettings returns the settings of LVM that concern this program. It reads files, not devices.
func (n *Node) LVMSettings(ctx context.Context, timeout time.Duration) (LVMSettings, error) {
	res, err := n.Run(ctx, Command{
		Argv:    []string{"lvmconfig", "--typeconfig", "full", "activation", "devices", "global", "log", "report"},
		Timeout: timeout, Capture: lvmCapture,
	})
	if err != nil {
		return nil, err
	}
	return ParseLVMSettings(res.Stdout)
}

// ParseLVMSettings parses the output of lvmconfig: sections with one setting per line.
func ParseLVMSettings(out string) (LVMSettings, error) {
	settings, section := LVMSettings{}, ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case strings.HasSuffix(line, "{"):
			section = strings.TrimSpace(strings.TrimSuffix(line, "{"))
		case line == "}":
			section = ""
		case !ok || section == "":
			return nil, fmt.Errorf("lvmconfig printed the unexpected line %.200q", line)
		default:
			values, err := parseLVMValue(value)
			if err != nil {
				return nil, fmt.Errorf("lvmconfig printed an unexpected value of %s/%.100s: %w", section, name, err)
			}
			settings[section+"/"+name] = values
		}
	}
	return settings, nil
}

// parseLVMValue parses a number, a string, or a list of these.
func parseLVMValue(value string) (list []string, err error) {
	value = strings.TrimSpace(value)
	if inner, ok := strings.CutPrefix(value, "["); ok {
		if value, ok = strings.CutSuffix(inner, "]"); !ok {
			return nil, fmt.Errorf("%.200q is not a list", inner)
		}
	}
	for value = strings.Trim(value, " ,"); value != ""; value = strings.TrimLeft(value, " ,") {
		if value[0] != '"' {
			one, _, _ := strings.Cut(value, ",")
			list, value = append(list, strings.TrimSpace(one)), value[len(one):]
			continue
		}
		end := 1
		for end < len(value) && value[end] != '"' {
			if value[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(value) {
			return nil, fmt.Errorf("%.200q has no closing quote", value)
		}
		list = append(list, strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value[1:end]))
		value = value[end+1:]
	}
	return list, nil
}

// LVMAccepts reports whether a filter of LVM accepts a device with these names (lvm.conf(5),
// devices/filter): it accepts the device if the first pattern that matches one of its names
// accepts, or if no pattern matches any name.
func LVMAccepts(filter, names []string) (bool, error) {
	type pattern struct {
		accepts bool
		*regexp.Regexp
	}
	var patterns []pattern
	for _, f := range filter {
		if len(f) < 3 || f[0] != 'a' && f[0] != 'r' {
			return false, fmt.Errorf("%.100q is not a valid pattern", f)
		}
		open := f[1:2]
		closing := map[string]string{"(": ")", "[": "]", "{": "}"}[open]
		if closing == "" {
			closing = open
		}
		expression, ok := strings.CutSuffix(f[2:], closing)
		if !ok {
			return false, fmt.Errorf("%.100q is not a valid pattern", f)
		}
		re, err := regexp.Compile(expression)
		if err != nil {
			return false, err
		}
		patterns = append(patterns, pattern{f[0] == 'a', re})
	}
	rejected := false
	for _, name := range names {
		for _, p := range patterns {
			if p.MatchString(name) {
				if p.accepts {
					return true, nil
				}
				rejected = true
				break
			}
		}
	}
	return !rejected, nil
}
