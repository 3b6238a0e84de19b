#!/usr/bin/env python3
"""Tests the reading and pairing of compare.py on made-up output: python3 tools/gpu/peers/test_compare.py

The times are round numbers that no device has, chosen so that results can be computed in the head.
"""
import json
import unittest

import compare


def google(name, us, unit="us", **more):
    return {"name": f"{name}/manual_time", "run_name": f"{name}/manual_time", "run_type": "iteration", "real_time": us,
            "cpu_time": 7, "time_unit": unit, **more}


class Reading(unittest.TestCase):
    def test_names_units_and_rates(self):
        text = json.dumps({"context": {}, "benchmarks": [
            google("cuda_copy/1", 2.0, "ms", **{"bytes/s": 4e9, "of copy": 1.0}), google("cuda_linear_forward/0", 3.0, **{"FLOP/s": 5e12}),
            google("cuda_attention_flash_mma_forward/1024/64", 6.0, **{"TFLOP/s": 7.0}),
            google("cuda_add/0", 0, error_occurred=True, error_message="out of memory")]})
        self.assertEqual(compare.read_google_benchmark(text), {
            "copy/bf16": {"us": 2000.0, "gbytes": 4.0, "of_copy": 1.0},
            "linear_forward/f32": {"us": 3.0, "tflops": 5.0},
            "attention_flash_mma_forward/T:1024/D:64": {"us": 6.0, "tflops": 7.0},
            "add/f32": {"error": "out of memory"}})

    def test_medians_of_repetitions(self):
        repeated = [google("cuda_copy/0", us, run_type="aggregate", aggregate_name=name) for us, name in ((9, "mean"), (5, "median"))]
        self.assertEqual(compare.read_google_benchmark(json.dumps({"benchmarks": repeated}))["copy/f32"]["us"], 5)

    def test_step(self):
        read = compare.read_step('{"step_ms": 10.0, "gflops": 1000.0}', 8, 1024)
        self.assertEqual(read, {"step/B:8/T:1024": {"us": 10000.0, "tflops": 1.0}})

    def test_peer(self):
        lines = ['{"name": "a", "us": 1.0, "how": "eager", "others": {}}', '{"name": "b", "error": {"eager": "no"}}']
        self.assertEqual(compare.read_peer(lines)["a"]["us"], 1.0)
        self.assertNotIn("us", compare.read_peer(lines)["b"])


class Combining(unittest.TestCase):
    def rows(self, *rounds):
        return {row["name"]: row for row in compare.combine(list(rounds))}

    def test_ratios_are_taken_within_a_round(self):
        name = "attention_flash_mma_forward/T:1"
        rows = self.rows(({name: {"us": 10}}, {name: {"us": 20, "how": "parts"}}),
                         ({name: {"us": 100}}, {name: {"us": 100, "how": "parts"}}),
                         ({name: {"us": 10}}, {name: {"us": 15, "how": "parts"}}))
        self.assertEqual(rows[name]["ratio"], 1.5)
        self.assertEqual(rows[name]["ratio_range"], [1.0, 2.0])
        self.assertTrue(rows[name]["met"])

    def test_goal_missed_and_not_compared(self):
        name = "step/B:8/T:1024"
        self.assertFalse(self.rows(({name: {"us": 10}}, {name: {"us": 9}}))[name]["met"])
        self.assertIsNone(self.rows(({name: {"us": 10}}, {}))[name]["met"])
        self.assertTrue(self.rows(({"attention_flash_mma_backward/T:1": {"us": 10}}, {"attention_flash_mma_backward/T:1": {"us": 9}}))
                        ["attention_flash_mma_backward/T:1"]["met"])

    def test_share_of_the_copy(self):
        ours = {"copy/bf16": {"us": 10, "gbytes": 100, "of_copy": 1.0}, "adamw/f32": {"us": 20, "gbytes": 90, "of_copy": 0.9},
                "add/f32": {"us": 20, "gbytes": 50, "of_copy": 0.5}}
        rows = self.rows((ours, {}))
        self.assertTrue(rows["adamw/f32"]["met"])
        self.assertFalse(rows["add/f32"]["met"])
        self.assertNotIn("goal", rows["copy/bf16"])

    def test_what_failed_is_a_row(self):
        rows = self.rows(({"a": {"error": "broken"}}, {"a": {"us": 1}}))
        self.assertEqual(rows["a"]["error"], "broken")
        self.assertIn("failed: broken", compare.table(list(rows.values())))

    def test_markdown(self):
        about = dict.fromkeys(["device", "date", "driver", "cuda", "torch", "revision", "rounds"], "?")
        rows = compare.combine([({"linear_forward/bf16": {"us": 2e4, "tflops": 2.0}}, {"linear_forward/bf16": {"us": 1e4, "how": "linear"}})])
        self.assertIn("| `linear_forward/bf16` | 20.00 ms | 2 TFLOP/s | 10.00 ms (linear) | 0.50 (0.50–0.50) |  |",
                      compare.markdown(rows, about))


if __name__ == "__main__":
    unittest.main()
