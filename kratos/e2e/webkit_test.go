package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// webKit is a tab of WebKitGTK's MiniBrowser, whose driver speaks WebDriver: https://w3c.github.io/webdriver/
type webKit struct {
	webDriverInput
	sessionURL string // of the driver
	handle     string
}

func startWebKit(t *testing.T, colors string) browser {
	const packages = "webkit2gtk-driver xvfb"
	driver, xvfb := lookPath(t, packages, "WebKitWebDriver"), lookPath(t, packages, "Xvfb")
	found, _ := filepath.Glob("/usr/lib*/*/webkit2gtk-4.1/MiniBrowser") // the pattern is good
	binary := lookPath(t, packages, found...)

	port, display := freePort(), freePort() // An X display is a number too.
	startProgram(t, nil, xvfb, fmt.Sprintf(":%d", display), "-screen", "0", "1400x1000x24")
	retry(t, "Xvfb", func() error {
		_, err := os.Stat(fmt.Sprintf("/tmp/.X11-unix/X%d", display))
		return err
	})
	startProgram(t, append(os.Environ(),
		fmt.Sprintf("DISPLAY=:%d", display),
		"GTK_THEME=Adwaita:"+colors,
		"WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1", // or it does not start for root
	), driver, fmt.Sprintf("--port=%d", port))

	w := webKit{sessionURL: fmt.Sprintf("http://127.0.0.1:%d/session", port)}
	capabilities := params{
		"acceptInsecureCerts":      true,
		"webkitgtk:browserOptions": params{"binary": binary, "args": []string{"--automation", "--full-screen"}},
	}
	var created struct{ SessionID string }
	retry(t, "WebKit", func() error {
		return w.send("POST", "", params{"capabilities": params{"alwaysMatch": capabilities}}, &created)
	})
	w.sessionURL += "/" + created.SessionID
	if err := w.send("GET", "/window", nil, &w.handle); err != nil {
		t.Fatal(err)
	}
	return w.tab(w.handle)
}

// send sends a command, and decodes the value of its answer.
func (w webKit) send(method, path string, p params, value any) error {
	body, _ := json.Marshal(p) // can have no error
	req, err := http.NewRequest(method, w.sessionURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: commandTimeout}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s %s: %s", method, path, answer)
	}
	return json.NewDecoder(resp.Body).Decode(&struct{ Value any }{value})
}

func (w webKit) tab(handle string) webKit {
	w.handle = handle
	w.webDriverInput = func(actions []any) error { return w.call("POST", "/actions", params{"actions": actions}, nil) }
	return w
}

// call sends a command for this tab.
func (w webKit) call(method, path string, p params, value any) error {
	if err := w.send("POST", "/window", params{"handle": w.handle}, nil); err != nil {
		return err
	}
	return w.send(method, path, p, value)
}

func (w webKit) open(url string) error { return w.call("POST", "/url", params{"url": url}, nil) }

func (w webKit) eval(js string) (value string, err error) {
	err = w.call("POST", "/execute/sync", params{"script": "return " + js, "args": []any{}}, &value)
	return value, err
}

func (w webKit) back() error   { return w.call("POST", "/back", params{}, nil) }
func (w webKit) reload() error { return w.call("POST", "/refresh", params{}, nil) }

func (w webKit) resize(width, height int) error {
	return w.call("POST", "/window/rect", params{"width": width, "height": height}, nil)
}

func (w webKit) screenshot() (png []byte, err error) {
	err = w.call("GET", "/screenshot", nil, &png)
	return png, err
}

func (w webKit) other() (browser, error) {
	var handles []string
	if err := w.call("GET", "/window/handles", nil, &handles); err != nil {
		return nil, err
	}
	for _, handle := range handles {
		if handle != w.handle {
			return w.tab(handle), nil
		}
	}
	return nil, errNoTab
}

func (w webKit) closeTab() error { return w.call("DELETE", "/window", nil, nil) }
