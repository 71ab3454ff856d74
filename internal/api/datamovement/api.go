// Package datamovement is the Copy Offload API, version 1, as programs of users
// speak it: datamovement.proto, the code generated from it, and the forms in
// which times are written there. Version 2 is in directory v2.
//
// It must not know who may do what, nor that Kubernetes exists. clientmountd
// must not link it.
package datamovement

import "time"

//go:generate ./generate.sh

// Socket is where the daemon listens unless it is configured otherwise.
const Socket = "/var/run/nnf-dm.sock"

// APIVersion is the one version that the Version call reports. Version 2 is not
// in the list: old clients compare the list with what they know.
const APIVersion = "1"

// TimeText writes a time as version 1 does in startTime, endTime and
// lastMessageTime: in the node's time zone, the way Go writes times. The zero
// time gives the empty text.
func TimeText(t time.Time) string { return timeText(t, time.Local) }

func timeText(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return ""
	}
	// Round(0) drops the monotonic clock's reading, which String would write
	// for times that come from time.Now.
	return t.Round(0).In(zone).String()
}

// ElapsedText writes a duration as version 1 does in elapsedTime: cut to the
// millisecond, empty unless it is more than nothing. Less than a millisecond
// gives "0s".
func ElapsedText(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.Truncate(time.Millisecond).String()
}
