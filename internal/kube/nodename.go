package kube

import (
	"errors"
	"fmt"
	"strings"
)

// NodeName returns the name of this compute, which is also the namespace that
// it watches (contract clientmountd.md 1.3): explicit unchanged if given, else
// the part of the host name before the first dot.
func NodeName(explicit string, hostname func() (string, error)) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	full, err := hostname()
	if err != nil {
		return "", fmt.Errorf("cannot read the host name: %w; set the node name explicitly", err)
	}
	short, _, _ := strings.Cut(full, ".")
	if short == "" {
		return "", errors.New("the host name is empty or starts with a dot; set the node name explicitly")
	}
	return short, nil
}
