package notary

import "testing"

func TestLineEndsAfterCredentials(t *testing.T) {
	for value, want := range map[string]string{
		"pw": "pw", "pw\n": "pw", "pw\r\n": "pw", "p\nw\n": "p\nw", " pw ": " pw ",
	} {
		if got := oneLine(value); got != want {
			t.Errorf("oneLine(%q): got %q, want %q", value, got, want)
		}
	}
}
