// Package datamovement is the Copy Offload API, version 1, which programs of users
// use: datamovement.proto, the code generated from it, and the text formats of its
// times. Version 2 is in directory v2.
//
// It must not know authorisation rules, nor that Kubernetes exists. clientmountd must
// not link it.
package datamovement

import "time"

//go:generate ./generate.sh

// Socket is the default path of the daemon's socket.
const Socket = "/var/run/nnf-dm.sock"

// APIVersion is the only version that the Version call reports. Version 2 is not in
// the list, because old clients compare the list with the versions they support.
const APIVersion = "1"

// TimeText formats a time for startTime, endTime and lastMessageTime of version 1: in
// the node's time zone, in the format of time.Time.String. It returns "" for the zero
// time.
func TimeText(t time.Time) string { return timeText(t, time.Local) }

func timeText(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return ""
	}
	// Round(0) removes the monotonic clock reading of times from time.Now, which
	// String would include.
	return t.Round(0).In(zone).String()
}

// ElapsedText formats a duration for elapsedTime of version 1: truncated to
// milliseconds, "" if it is not positive. It returns "0s" for less than a millisecond.
func ElapsedText(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.Truncate(time.Millisecond).String()
}
