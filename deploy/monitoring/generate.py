#!/usr/bin/env python3
"""Writes the boards of boards.py for Grafana and as console pages of Prometheus.

    generate.py [--check]     --check: writes nothing, fails if a file is not up to date
"""

import argparse
import json
import os
import re
import sys

from boards import BOARDS

DEPLOY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATASOURCE = {"type": "prometheus", "uid": "troupe-prometheus"}
COLUMNS = 24
FAINT = "#8fb3d9"
HEIGHTS = {"stat": 4, "lines": 8, "states": 8, "row": 1}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} - Troupe</title>
{{{{template "troupe_style"}}}}
</head>
<body>
<script id="board" type="application/json">
{board}
</script>
{{{{template "troupe_script"}}}}
</body>
</html>
"""


def for_grafana(legend):
    return re.sub(r"\{(\w+)\}", r"{{\1}}", legend)


def target(query, index, is_stat):
    return {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query.expr,
            "legendFormat": for_grafana(query.legend) or "__auto", "range": not is_stat,
            "instant": is_stat}


def field_config(panel):
    defaults = {"unit": panel.unit, "color": {"mode": "palette-classic"}, "custom": {}}
    if panel.minimum is not None:
        defaults["min"] = panel.minimum
    if panel.kind == "stat":
        defaults["color"] = {"mode": "fixed", "fixedColor": "text"}
    elif panel.kind == "lines":
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 2, "fillOpacity": 0,
                              "showPoints": "never", "spanNulls": False}
    return {"defaults": defaults, "overrides": [
        {"matcher": {"id": "byName", "options": query.legend},
         "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": FAINT}},
                        {"id": "custom.lineWidth", "value": 1}]}
        for query in panel.queries if query.faint]}


TYPES = {"stat": "stat", "lines": "timeseries", "states": "state-timeline"}
OPTIONS = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
             "graphMode": "none", "colorMode": "value", "textMode": "value"},
    "lines": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
              "tooltip": {"mode": "multi", "sort": "desc"}},
    "states": {"showValue": "never", "rowHeight": 0.8,
               "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
               "tooltip": {"mode": "single", "sort": "none"}},
}


def grafana_panels(board):
    """Rows of panels from left to right, each row as high as its first panel."""
    panels, y = [], 0
    for section in board.sections:
        panels.append({"type": "row", "title": section.title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": HEIGHTS["row"]}})
        y += HEIGHTS["row"]
        x = height = 0
        for panel in section.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            height = HEIGHTS[panel.kind]
            panels.append({
                "type": TYPES[panel.kind], "title": panel.title, "description": panel.help,
                "datasource": DATASOURCE, "fieldConfig": field_config(panel),
                "options": OPTIONS[panel.kind],
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
                "targets": [target(query, i, panel.kind == "stat")
                            for i, query in enumerate(panel.queries)]})
            x += panel.width
        y += height
    return [{"id": i, **panel} for i, panel in enumerate(panels, 1)]


def grafana_dashboard(board):
    job = {"name": "job", "label": "Run", "type": "query", "datasource": DATASOURCE,
           "query": {"query": "label_values(troupe_build_info, job)", "refId": "job"},
           "refresh": 2, "sort": 1, "hide": 0, "multi": False, "includeAll": False, "regex": "",
           "options": [], "current": {}}
    alerts = {"name": "Alerts", "datasource": DATASOURCE, "enable": True, "iconColor": "red",
              "expr": 'ALERTS{alertstate="firing", job="$job"}', "titleFormat": "{{alertname}}",
              "textFormat": "{{process}}"}
    links = [{"type": "dashboards", "title": "Troupe", "tags": ["troupe"], "asDropdown": False,
              "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "", "url": "",
              "tooltip": ""}]
    return {"uid": board.uid, "title": f"Troupe: {board.title}", "tags": ["troupe"],
            "timezone": "browser", "editable": False, "graphTooltip": 1, "schemaVersion": 38,
            "version": 1, "refresh": "5s", "time": {"from": "now-30m", "to": "now"},
            "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m"]},
            "templating": {"list": [job]}, "annotations": {"list": [alerts]}, "links": links,
            "panels": grafana_panels(board)}


def console_page(board):
    sections = [{"title": section.title, "panels": [
        {"title": panel.title, "help": panel.help, "unit": panel.unit, "kind": panel.kind,
         "width": panel.width, "minimum": panel.minimum,
         "queries": [{"expr": query.expr, "legend": query.legend, "faint": query.faint}
                     for query in panel.queries]}
        for panel in section.panels]} for section in board.sections]
    content = {"name": board.name, "sections": sections,
               "boards": [{"name": other.name, "title": other.title} for other in BOARDS]}
    text = json.dumps(content, indent=1)
    assert "{{" not in text and "</" not in text, "would mean something to the template"
    return PAGE.format(title=board.title, board=text)


def files():
    """Path -> text of everything that is generated."""
    made = {}
    for board in BOARDS:
        dashboard = json.dumps(grafana_dashboard(board), indent=2) + "\n"
        made[os.path.join(DEPLOY, "grafana", "dashboards", board.name + ".json")] = dashboard
        page = os.path.join(DEPLOY, "prometheus", "consoles", board.name + ".html")
        made[page] = console_page(board)
    return made


def is_current(path, text):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read() == text
    except FileNotFoundError:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = {path: text for path, text in files().items() if not is_current(path, text)}
    for path, text in stale.items():
        if check:
            print(f"{path} is not what deploy/monitoring/generate.py writes", file=sys.stderr)
            continue
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        print(path)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
