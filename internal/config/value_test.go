package config

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	off := map[string]int64{"off": -1}
	for _, test := range []struct {
		setting Setting
		text    string
		want    any
		err     string // a part of the message
	}{
		{Setting{Kind: String}, "a b", "a b", ""},
		{Setting{Kind: String}, "", "", ""},
		{Setting{Kind: String}, "a\nb", nil, `"a\nb" contains a control character`},
		{Setting{Kind: String}, "\xff", nil, "not UTF-8"},
		{Setting{Kind: String}, strings.Repeat("x", maxText), strings.Repeat("x", maxText), ""},
		{Setting{Kind: String}, strings.Repeat("x", maxText+1), nil, "too long"},
		{Setting{Kind: Bool}, "true", true, ""},
		{Setting{Kind: Bool}, "false", false, ""},
		{Setting{Kind: Bool}, "yes", nil, `"yes" is not a boolean, accepted: true or false`},
		{Setting{Kind: Bool}, "", nil, "not a boolean"},
		{Setting{Kind: Int}, "-5", -5, ""},
		{Setting{Kind: Int}, "5s", nil, `"5s" is not an integer`},
		{Setting{Kind: Int}, "99999999999999999999", nil, "not an integer"},
		{Setting{Kind: Int, Min: "1", Max: "9"}, "9", 9, ""},
		{Setting{Kind: Int, Min: "1", Max: "9"}, "10", nil, "10 is out of range, accepted: 1 to 9"},
		{Setting{Kind: Int, Min: "1"}, "0", nil, "0 is out of range, accepted: at least 1"},
		{Setting{Kind: Int, Max: "1"}, "2", nil, "2 is out of range, accepted: at most 1"},
		{Setting{Kind: Int, Min: "1", Words: off}, "off", -1, ""},
		{Setting{Kind: Int, Min: "1", Words: off}, "on", nil, `"on" is not an integer or "off"`},
		{Setting{Kind: Port}, "6443", "6443", ""},
		{Setting{Kind: Port}, "", "", ""},
		{Setting{Kind: Port}, "0", nil, `"0" is not a port, accepted: 1 to 65535`},
		{Setting{Kind: Port}, "65536", nil, "not a port"},
		{Setting{Kind: Port}, "https", nil, "not a port"},
		{Setting{Kind: Duration}, "1h30m", 90 * time.Minute, ""},
		{Setting{Kind: Duration}, "90", nil, `"90" is not a duration, accepted: a number with a unit`},
		{Setting{Kind: Duration}, "2 min", nil, "not a duration"},
		{Setting{Kind: Duration, Min: "5m", Max: "24h"}, "1m", nil, "1m is out of range, accepted: 5m to 24h"},
		{Setting{Kind: Size}, "20MiB", int64(20 << 20), ""},
		{Setting{Kind: Size}, "1 TiB", int64(1 << 40), ""},
		{Setting{Kind: Size}, "4096", int64(4096), ""},
		{Setting{Kind: Size}, "10B", int64(10), ""},
		{Setting{Kind: Size}, "-1", nil, "not a size"},
		{Setting{Kind: Size}, "+1", nil, "not a size"},
		{Setting{Kind: Size}, "1.5GiB", nil, "not a size"},
		{Setting{Kind: Size}, "20MB", nil, `"20MB" is not a size, accepted: bytes or a number with a unit`},
		{Setting{Kind: Size}, "9000000TiB", nil, "is not a size"},
		{Setting{Kind: Size, Words: map[string]int64{"off": math.MaxInt64}, Max: "1GiB"}, "off", int64(math.MaxInt64), ""},
		{Setting{Kind: Strings}, "/a, /b,,", []string{"/a", "/b"}, ""},
		{Setting{Kind: Strings}, "", []string{}, ""},
		{Setting{Kind: Strings}, "/a,/b\x00", nil, "control character"},
		{Setting{Kind: Enum, Values: []string{"report", "unmount"}}, "report", "report", ""},
		{Setting{Kind: Enum, Values: []string{"report", "unmount"}}, "umount", nil, `"umount" is not a valid value, accepted: report, unmount, did you mean "unmount"?`},
		{Setting{Kind: Enum, Values: []string{"report"}}, "", nil, `"" is not a valid value, accepted: report`},
		{Setting{Kind: Int, Check: func(v any) error {
			if v.(int)%2 == 1 {
				return errors.New("odd")
			}
			return nil
		}}, "3", nil, "odd"},
	} {
		got, err := test.setting.parse(test.text)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s %.40q: error %v, want %q", test.setting.Kind.Noun(), test.text, err, test.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %.40q: %#v, %v, want %#v", test.setting.Kind.Noun(), test.text, got, err, test.want)
		}
	}
}

func TestLongValuesAreCutInMessages(t *testing.T) {
	s := Setting{Kind: Enum, Values: []string{"a"}}
	_, err := s.parse(strings.Repeat("é", 1000))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

func TestFromTOML(t *testing.T) {
	duration := Setting{Kind: Duration, Max: "1h"}
	for _, test := range []struct {
		setting Setting
		data    any
		want    any
		err     string
	}{
		{Setting{Kind: String}, "x", "x", ""},
		{Setting{Kind: String}, int64(1), nil, "an integer where a string is expected, accepted: a quoted string"},
		{Setting{Kind: Bool}, true, true, ""},
		{Setting{Kind: Bool}, "true", nil, "a string where a boolean is expected, accepted: true or false"},
		{Setting{Kind: Int}, int64(7), 7, ""},
		{Setting{Kind: Int}, "7", nil, "a string where an integer is expected, accepted: a number without quotes"},
		{Setting{Kind: Int}, 7.5, nil, "a number with a fraction where an integer is expected"},
		{Setting{Kind: Int, Min: "9"}, int64(7), nil, "7 is out of range, accepted: at least 9"},
		{Setting{Kind: Int, Words: map[string]int64{"off": -1}}, "off", -1, ""},
		{Setting{Kind: Int, Words: map[string]int64{"off": -1}}, "on", nil, `a number without quotes or "off"`},
		{Setting{Kind: Port}, int64(6443), "6443", ""},
		{Setting{Kind: Port}, "6443", "6443", ""},
		{Setting{Kind: Port}, int64(-1), nil, `"-1" is not a port`},
		{duration, "30m", 30 * time.Minute, ""},
		{duration, "2h", nil, "2h is out of range, accepted: at most 1h"},
		{duration, "soon", nil, `"soon" is not a duration`},
		{duration, int64(30), nil, `an integer where a duration is expected, accepted: a quoted string, for example "30s"`},
		{duration, map[string]any{}, nil, "a table where a duration is expected"},
		{duration, []map[string]any{}, nil, "a list of tables where a duration is expected"},
		{duration, time.Now(), nil, "a date or time where a duration is expected"},
		{Setting{Kind: Size}, int64(1024), int64(1024), ""},
		{Setting{Kind: Size}, "1KiB", int64(1024), ""},
		{Setting{Kind: Size}, int64(-1), nil, "-1 is negative"},
		{Setting{Kind: Strings}, []any{"a", "b,c"}, []string{"a", "b,c"}, ""},
		{Setting{Kind: Strings}, []any{}, []string{}, ""},
		{Setting{Kind: Strings}, []any{"a", int64(1)}, nil, "an integer in the list"},
		{Setting{Kind: Strings}, "a", nil, "a string where a list is expected"},
		{Setting{Kind: String}, []any{"a"}, nil, "a list where a string is expected"},
		{Setting{Kind: Enum, Values: []string{"a", "b"}}, "a", "a", ""},
		{Setting{Kind: Enum, Values: []string{"a", "b"}}, true, nil, `a boolean where a word is expected, accepted: "a", "b"`},
	} {
		got, err := test.setting.fromTOML(test.data)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s %#v: error %v, want %q", test.setting.Kind.Noun(), test.data, err, test.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %#v: %#v, %v, want %#v", test.setting.Kind.Noun(), test.data, got, err, test.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		10 * time.Hour: "10h", 10 * time.Minute: "10m", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s", 100 * time.Millisecond: "100ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(formatDuration(d)); back != d || err != nil {
			t.Errorf("%v reads back as %v, %v", d, back, err)
		}
	}
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1024: "1KiB", 1536: "1536B", 20 << 20: "20MiB", 1 << 40: "1TiB", 1 << 50: "1024TiB"} {
		got := formatSize(n)
		if back, err := parseSize(got); got != want || back != n || err != nil {
			t.Errorf("%d: %s, want %s; reads back as %d, %v", n, got, want, back, err)
		}
	}
	for text, want := range map[string]string{`a"b\c`: `"a\"b\\c"`, "tab\tbell\a": "\"tab\\u0009bell\\u0007\"", "ü": `"ü"`} {
		if got := tomlString(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("x", 100)
	for text, want := range map[string]string{
		"":                          "",
		"one":                       "# one\n",
		"one  two":                  "# one two\n",
		strings.Repeat("word ", 16): "# " + strings.Repeat("word ", 14) + "word\n# word\n",
		"a " + long + " b":          "# a\n# " + long + "\n# b\n",
	} {
		if got := wrap("# ", text); got != want {
			t.Errorf("wrap(%q) = %q, want %q", text, got, want)
		}
	}
}
