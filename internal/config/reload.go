package config

import "reflect"

// Reload loads anew into the fields of t, which must be a table bound to a
// fresh structure, never to the one that the running daemon reads. Changed are
// the keys whose new value is in effect; ignored those that changed as well but
// need a restart, and that keep their old value and origin.
//
// With an error nothing changed: the result is old, and the fields of t are
// untouched.
func Reload(old Result, t *Table, src Sources) (result Result, changed, ignored []string, err error) {
	result, _, err = load(t, src)
	if err != nil {
		return old, nil, nil, err
	}
	for i := range result.Values {
		now := &result.Values[i]
		before, ok := old.Lookup(now.Setting.Key)
		switch {
		case !ok || reflect.DeepEqual(before.Value, now.Value):
		case now.Setting.Reload:
			changed = append(changed, now.Setting.Key)
		default:
			ignored = append(ignored, now.Setting.Key)
			now.Value, now.Origin = before.Value, before.Origin
		}
	}
	return result, changed, ignored, result.fill()
}
