"""Numbers of the built-in compiler, as functions of plain arrays that know no graph.

``fixed``       fixed(values, bits, max_shift) -> (mul, shift);
                batch_norm(multiplier[oc], offset[oc], acc_limit=, max_fraction=) -> BatchNorm
                with .mul .shift .add .fraction: v = output code before the zero point * 2**fraction
``segments``    linear(fraction, zero_point, low, high), leaky(fraction, zero_point, alpha),
                fit(curve, v_low, v_high, weights=) -> ActivationTable / Fit;
                leaky and fitted tables want batch_norm(max_fraction=CURVE_FRACTION)
``weights``     grid(w, bits=) -> (zero_point, scale[oc]);
                round_nearest, round_feedback(w, zero_point, scale, h), round_depthwise
                -> QuantisedWeights(codes, zero_point, scale)
``moments``     second_moments(x): H, exact on any BLAS
``range_choice``
                choose(method, counts, width, low, high) -> (low, high);
                quantisation(low, high) -> (scale, zero_point)
``allocator``   place(buffers, align=) -> Placement(addresses, total); lower_bound, busiest_step
``collect``     collect(data, samples, open_model, threads=, progress=) -> Calibration
                (to_npz, from_npz)
"""
