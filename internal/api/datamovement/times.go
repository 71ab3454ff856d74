package datamovement

import "time"

// TimeText writes a time as version 1 does in startTime, endTime and
// lastMessageTime: in the node's time zone, the way Go writes times (contract
// nnf-dm.md 3). The zero time gives the empty text.
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
// millisecond, empty unless it is more than nothing (contract nnf-dm.md 4.4).
// Less than a millisecond gives "0s".
func ElapsedText(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.Truncate(time.Millisecond).String()
}
