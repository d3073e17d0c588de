package e2e

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/preload"
	"github.com/chromedp/chromedp"
)

// chromium is driven by chromedp, over the Chrome DevTools Protocol.
type chromium struct{ ctx context.Context }

func startChromium(t *testing.T, colors string) browser {
	path := lookPath(t, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU,
		chromedp.NoSandbox, // which does not work for root
		chromedp.Flag("ignore-certificate-errors", true))
	if colors == "dark" {
		options = append(options, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	ctx, stop := chromedp.NewExecAllocator(interrupted, options...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx) }) // waits for its end
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return chromium{ctx}
}

func runChromium[T any](c chromium, step chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(c.ctx, commandTimeout)
	defer cancel()
	return chromedp.Run(ctx, step)
}

func (c chromium) do(step chromedp.Action[chromedp.Void]) error {
	_, err := runChromium(c, step)
	return err
}

func (c chromium) eval(js string) (string, error) {
	return runChromium(c, chromedp.Evaluate[string](js))
}
func (c chromium) screenshot() ([]byte, error) { return runChromium(c, chromedp.CaptureScreenshot()) }
func (c chromium) open(url string) error       { return c.do(chromedp.Navigate(url)) }
func (c chromium) back() error                 { return c.do(chromedp.NavigateBack()) }
func (c chromium) reload() error               { return c.do(chromedp.Reload()) }
func (c chromium) press(key string) error      { return c.do(chromedp.KeyEvent(key)) }

func (c chromium) mouse(x, y, clicks int) error {
	// A tab behind another takes 5 seconds for a click.
	if _, err := chromedp.Call(c.ctx, page.BringToFront, cdp.Empty{}); err != nil {
		return err
	}
	err := c.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, float64(x), float64(y)))
	for i := 0; i < clicks && err == nil; i++ {
		err = c.do(chromedp.MouseClickXY(float64(x), float64(y)))
	}
	return err
}

func (c chromium) resize(width, height int) error {
	return c.do(chromedp.EmulateViewport(int64(width), int64(height)))
}

func (c chromium) other() (browser, error) {
	targets, err := chromedp.Targets(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, target := range targets {
		if target.Type == "page" && target.TargetID != chromedp.FromContext(c.ctx).Target.TargetID {
			ctx, _ := chromedp.NewContext(c.ctx, chromedp.WithTargetID(target.TargetID)) // ends with c's
			err := chromedp.Do(ctx)
			return chromium{ctx}, err
		}
	}
	return nil, errNoTab
}

func (c chromium) closeTab() error {
	_, err := chromedp.Call(c.ctx, page.Close, cdp.Empty{})
	return err
}

// preloadSays returns a func that fails until Chromium says one of statuses of a prefetch or prerender of u's.
func preloadSays(u *user, statuses ...string) func() error {
	u.t.Helper()
	ctx := u.browser.(chromium).ctx
	_, err := chromedp.Call(ctx, preload.Enable, cdp.Empty{})
	u.must(err)
	var said atomic.Bool
	u.must(chromedp.Listen(ctx, func(event any) {
		var got [2]string
		switch event := event.(type) {
		case *preload.EventPrefetchStatusUpdated:
			got = [2]string{string(event.Status), string(event.PrefetchStatus)}
		case *preload.EventPrerenderStatusUpdated:
			got = [2]string{string(event.Status), string(event.PrerenderStatus)}
		}
		if slices.Contains(statuses, got[0]) || slices.Contains(statuses, got[1]) {
			said.Store(true)
		}
	}))
	return func() error {
		if !said.Load() {
			return errors.New("not said")
		}
		return nil
	}
}
