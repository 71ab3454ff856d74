package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// The meaning of clientmountd's environment names, which earlier daemons
// defined, and the checks of single values.

// wholeSeconds is NNF_COMMAND_TIMEOUT_SECONDS: an integer. Zero and less meant
// "no limit" once; a daemon that must never hang has no such thing, so that they
// are ignored, with a warning. Garbage made every command fail; here it is an
// error at start.
func wholeSeconds(text string) (string, bool, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return "", false, fmt.Errorf("%s is not a number of seconds, accepted: a whole number above 0", quote(text))
	}
	if n <= 0 {
		return "", false, harmless{fmt.Errorf("%d, once \"no limit\", is not a limit, accepted: a whole number of seconds above 0", n)}
	}
	return text + "s", true, nil
}

// waitSeconds is NNF_MAPPER_WAIT_TIMEOUT: seconds above 0. Anything else is
// ignored, with a warning.
func waitSeconds(text string) (string, bool, error) {
	if n, err := strconv.ParseInt(text, 10, 32); err != nil || n <= 0 {
		return "", false, fmt.Errorf("%s is not a number of seconds above 0", quote(text))
	}
	return text + "s", true, nil
}

// always is for names whose mere presence says it.
func always(value string) func(string) (string, bool, error) {
	return func(string) (string, bool, error) { return value, true, nil }
}

// onlyKind is ENVIRONMENT, a name that many programs use for many things: only
// the word "kind" is meant for us.
func onlyKind(text string) (string, bool, error) { return text, text == "kind", nil }

// firstOfList is RUNTIME_DIRECTORY, which systemd fills with a list separated
// by colons when a unit has several.
func firstOfList(text string) (string, bool, error) {
	first, _, _ := strings.Cut(text, ":")
	return first, first != "", nil
}

// namespaceName holds the node's name to what Kubernetes accepts as the name of
// a namespace (RFC 1123 label), which it is used as, unchanged.
func namespaceName(value any) error {
	name := value.(string)
	foreign := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	if len(name) > 63 || strings.ContainsFunc(name, foreign) || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") {
		return fmt.Errorf("%s cannot name a namespace, accepted: up to 63 of a-z, 0-9 and \"-\" (which is neither first nor last)", quote(name))
	}
	return nil
}

func absoluteDirectory(value any) error {
	if path := value.(string); !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("%s is not accepted: an absolute path below / without \"..\", \"//\" or a slash at the end", quote(path))
	}
	return nil
}

func mountRoots(value any) error   { return safepath.CheckMountRoots(value.([]string)) }
func mountOptions(value any) error { return safepath.CheckMountOptions(value.([]string)) }

func neverOrMinute(value any) error {
	if d := value.(time.Duration); d > 0 && d < time.Minute {
		return errors.New(formatDuration(d) + ` is out of range, accepted: "0s" (never) or at least 1m`)
	}
	return nil
}
